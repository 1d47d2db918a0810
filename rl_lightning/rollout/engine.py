"""The protocol of a rollout engine, which generates completions: the policy itself, vLLM, or your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from rl_lightning.memory import Device, HeldModel, MemoryLimits, PlannedSettings, RolloutMemory, StepShape
from rl_lightning.memory.plan import Plan
from rl_lightning.policy import Policy
from rl_lightning.rollout.sampling import Sampling
from rl_lightning.types import PromptBatch, Rollout

OnFinished = Callable[[int, str], None]
"""Called with a row's number and its text as soon as the row has ended, while others are still being sampled."""


class RolloutEngine(Protocol):
    """Generates completions.

    Order of calls: `memory` at any time, many times; `start` before each stage (fit, validate), with the same policy in a later
    one; then `sync_weights` and `generate`; `close` after the stage. Heavy imports belong in `start`, because the `plan` command
    makes an engine without running it. A class chosen from a config must annotate these methods as they are here.
    """

    def memory(self, model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device) -> RolloutMemory:
        """The memory that the engine needs for steps of this shape, from the model's sizes alone, before anything is loaded.

        Args:
            model: the model as the trainer holds it.
            step: the largest training step.
            settings: the settings to predict for; only `max_rollout_rows` and `merged` concern an engine.
            device: where the run takes place, and its memory.

        Returns:
            bytes by part, besides the policy itself: what stays resident during the update too, and the peaks of a rollout.
        """
        ...

    def evaluator(self) -> RolloutEngine:
        """The engine that evaluates: this one, or another, which this one's `start` and `close` start and close. Its own
        `sync_weights` is called before each evaluation. Evaluations are paired if row n is decided by draws[n] alone."""
        ...

    def start(self, policy: Policy, plan: Plan | None = None, limits: MemoryLimits | None = None) -> None:
        """Prepare to sample from a policy that has been loaded.

        Args:
            policy: its weights, tokenizer, EOS tokens and `decode_text` are used; `policy.config` names the model.
            plan: the memory plan; None for no bound on memory.
            limits: the run's memory limits; an engine in this process halves `rollout_rows` when it runs out of memory. None for no
                limit.
        """
        ...

    def sync_weights(self) -> None:
        """Read the policy's current weights; `generate` samples from these until the next call."""
        ...

    def generate(
        self, prompts: PromptBatch, sampling: Sampling, draws: Tensor | None, on_finished: OnFinished | None = None
    ) -> Rollout:
        """Complete every prompt, without using the process's RNG states.

        Args:
            prompts: B prompts, their tensors on the policy's device.
            sampling: G completions per prompt, their length limit, temperature and filters.
            draws: (B * G, max_new_tokens) float64 in [0, 1) on the CPU, uniform random numbers: row n is decided by draws[n]
                alone, so that it does not depend on the rows that it is batched with, but for rounding. An engine with its own
                random numbers derives a row's seed from draws[n]. None for one greedy completion per prompt (N = B, whatever G is).
            on_finished: called in the caller's thread for every row as it ends; optional, it only saves time.

        Returns:
            the rollout; row n answers prompt n // G. Its tensors are on the prompts' device and not inference tensors;
            `sampling_logps` are under the distribution that tokens were sampled from, after temperature and filters; texts come
            from `policy.decode_text`, without the EOS token.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds besides the policy."""
        ...
