"""A second rollout engine: it replays fixed completions, whatever the policy would have written."""

from __future__ import annotations

import torch
from torch import Tensor

from rl_lightning.memory import Device, HeldModel, MemoryLimits, Plan, PlannedSettings, RolloutMemory, StepShape
from rl_lightning.policy import Policy
from rl_lightning.rollout import Sampling
from rl_lightning.rollout.engine import OnFinished, RolloutEngine
from rl_lightning.types import PromptBatch, Rollout


class ReplayEngine:
    """Answers every prompt with the same group of texts.

    Args:
        texts: a group's completions, each ended by the EOS token.
    """

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.synced = self.started = 0
        self.closed = False

    def memory(self, model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device) -> RolloutMemory:
        return RolloutMemory(resident={}, peaks=[{"cache": 1e6}])

    def evaluator(self) -> RolloutEngine:
        return self

    def start(self, policy: Policy, plan: Plan | None = None, limits: MemoryLimits | None = None) -> None:
        self.policy, self.started = policy, self.started + 1

    def sync_weights(self) -> None:
        self.synced += 1

    def generate(
        self, prompts: PromptBatch, sampling: Sampling, draws: Tensor | None, on_finished: OnFinished | None = None
    ) -> Rollout:
        group = 1 if draws is None else sampling.num_generations
        assert draws is None or draws.shape == (len(prompts) * group, sampling.max_new_tokens)
        texts = [self.texts[n % len(self.texts)] for n in range(group)] * len(prompts)
        end = int(self.policy.eos_token_ids[0])
        rows = [[*self.policy.tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in texts]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for n, row in enumerate(rows):
            ids[n, : len(row)], mask[n, : len(row)] = torch.tensor(row), True
            if on_finished is not None:
                on_finished(n, texts[n])
        logps = torch.full(ids.shape, -1.0).where(mask, 0.0)
        done = torch.ones(len(rows), dtype=torch.bool)
        return Rollout(prompts.prompt_ids, prompts.prompt_lengths, ids, mask, logps, done, tuple(texts))

    def close(self) -> None:
        self.closed = True
