"""What the verification asks of the policy itself, by rl_lightning's own network: log-probs of completions, greedy answers."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch
from torch import Tensor

from rl_lightning.environments.batches import collate
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import Prompt
from rl_lightning.export.formats import compute_device
from rl_lightning.export.source import Source
from rl_lightning.export.stored_completions import Completion, as_rollout
from rl_lightning.memory import StepShape, make_plan, memory_of_cards
from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.policy.placement import replica_devices
from rl_lightning.rollout import LocalEngine
from rl_lightning.rollout.self_test import self_test
from rl_lightning.types import Problem

_ROWS = 32
"""Completions whose log-probs are computed, and prompts that are answered, at once."""


class MeasuredPolicy:
    """The policy of a checkpoint, loaded as the run had it, or on the base in full precision.

    Args:
        source: the checkpoint and its run.
        config: the model's settings.
        template: the run's prompts.
        prompt_tokens: length of the longest prompt.
    """

    def __init__(self, source: Source, config: PolicyConfig, template: PromptTemplate, prompt_tokens: int) -> None:
        device = compute_device()
        step = StepShape(_ROWS, 1, prompt_tokens, source.sampling.max_new_tokens)
        devices, self._engine = replica_devices(device, config.devices_per_replica), LocalEngine()
        self._plan = make_plan(config, step, "auto", "auto", memory_of_cards(devices), self._engine)
        self.policy = Policy(self._plan.apply(config), device, layer_devices=self._plan.layer_devices(devices))
        self.policy.opening = template.opening
        if config.self_test:
            self_test(self.policy, self._plan.settings.merged)
        self._sampling, self._template = source.sampling, template

    @torch.no_grad()
    def log_probs(self, completions: Sequence[Completion]) -> list[Tensor]:
        """(T,) float32 log-probs of each completion's T tokens, at temperature 1."""
        rollout = as_rollout(completions, self.policy.device)
        found = torch.zeros(rollout.mask.shape)
        rows = torch.arange(len(completions), device=self.policy.device)
        for micro in pack(rollout, rows, self._plan.settings.token_budget):
            found[micro.row_of.cpu(), micro.column_of.cpu()] = self.policy.log_probs(micro, 1.0)[0].cpu()
        return [row[: len(each.completion_ids)] for row, each in zip(found, completions, strict=True)]

    def complete(self, problems: Sequence[Problem]) -> list[str]:
        """The greedy completion of each problem as text, as evaluations have it."""
        self._engine.start(self.policy, self._plan)
        self._engine.sync_weights()
        texts: list[str] = []
        for start in range(0, len(problems), _ROWS):
            some = problems[start : start + _ROWS]
            prompts = [Prompt(p, self._template.token_ids(p.question, p.task), {}) for p in some]
            batch = collate(prompts).to(self.policy.device)
            texts += self._engine.generate(batch, self._sampling, draws=None).texts
        return texts

    def free(self) -> None:
        """Give back the model's memory before another is loaded."""
        del self.policy, self._engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
