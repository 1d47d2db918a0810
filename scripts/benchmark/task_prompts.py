"""The tasks of a config and how it asks them: as token ids, which rl_lightning reads, and as chat messages, which TRL reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rl_lightning.environments.examples import shown_hashes, worked_examples
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptSettings
from rl_lightning.environments.stream import PromptStream, eval_problems, held_out_hashes
from rl_lightning.types import Problem


class TaskPrompts:
    """The prompts of a config, as `PromptDataModule` makes them; without prefill, curriculum or a template of its own.

    Args:
        config: with a section `data`.
        tokenizer: of the model.

    Attributes:
        mixture: the tasks.
        template: renders their questions, after the worked examples.
        held_out: the problems of the evaluation.
    """

    def __init__(self, config: Mapping[str, Any], tokenizer: Any) -> None:
        data = config["data"]
        self.mixture = EnvironmentMixture({name: TaskSpec(**spec) for name, spec in data["datasets"].items()})
        self.settings = PromptSettings(**{f.name: data[f.name] for f in fields(PromptSettings) if f.name in data})
        self.tokenizer, self.template = tokenizer, self.settings.template(tokenizer)
        self.held_out = eval_problems(self.mixture, data.get("eval_seed", 0), data["eval_num_samples"])
        hashes = held_out_hashes(self.held_out)
        self.examples = worked_examples(self.mixture, self.settings, data.get("eval_seed", 0), hashes)
        self.template.show(self.examples)
        self._never_trained_on, self._most = hashes | shown_hashes(self.examples), data.get("max_prompt_tokens", 512)

    def problems(self, count: int, seed: int = 0) -> list[Problem]:
        """The first `count` problems that a run with this seed trains on, in order."""
        stream = PromptStream(self.mixture, self.template, seed, self._never_trained_on, self._most)
        return [stream[k].problem for k in range(count)]

    def token_ids(self, problem: Problem) -> tuple[int, ...]:
        """The problem as rl_lightning's policy reads it."""
        return self.template.token_ids(problem.question, problem.task)

    def messages(self, problem: Problem) -> list[dict[str, str]]:
        """The same as a conversation.

        Raises:
            RuntimeError: the model's chat template makes other token ids of it.
        """
        turns = [("system", self.settings.system_prompt)] if self.settings.system_prompt else []
        for question, answer in self.examples.get(problem.task, ()):
            turns += [("user", question), ("assistant", answer)]
        turns.append(("user", problem.question.strip()))
        messages = [{"role": role, "content": text} for role, text in turns]
        ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        if tuple(ids) != self.token_ids(problem):
            raise RuntimeError(
                f"the two sides would read different prompts of {problem.task}: {problem.question[:60]!r}"
            )
        return messages
