"""An environment of one's own, in a module that workers import quickly."""

from __future__ import annotations

import random

from rl_lightning.environments import Environment
from rl_lightning.types import Problem


class Boxes(Environment):
    """Count the apples in equal boxes."""

    def __init__(self, most: int = 9) -> None:
        self.config = {"most": most}

    def problem(self, seed):
        rng = random.Random(seed)
        boxes, each = (rng.randint(1, self.config["most"]) for _ in range(2))
        return Problem(f"{boxes} boxes, {each} apples each: {rng.random():.3f}?", expected=str(boxes * each))

    def verify(self, problem, answer):
        return float(answer.strip() == problem.expected)

    def thinking(self, problem):
        return "One box after the other."

    def levels(self, own):
        return own or [{"most": most} for most in (3, 6, 9)]

    def at_level(self, config):
        return Boxes(**config)
