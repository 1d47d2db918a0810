"""A task that never makes some of its problems, in a module that workers import quickly."""

from __future__ import annotations

from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask


class Endless(ReasoningGymTask):
    """A task whose problems of a thousand terms are never made."""

    def __reduce__(self):
        return Endless, (self.name, self.config)

    def at_level(self, config):
        return Endless(self.name, config)

    def problem(self, seed):
        while self.config.get("min_terms") == 1000:
            pass
        return super().problem(seed)
