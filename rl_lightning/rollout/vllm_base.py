"""What the engines on vLLM have in common: evaluation stays on the policy itself, and nothing is sampled before a check."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from rl_lightning.memory import MemoryLimits, halve_on_oom
from rl_lightning.memory.plan import Plan
from rl_lightning.policy import Policy
from rl_lightning.rollout.engine import OnFinished, RolloutEngine
from rl_lightning.rollout.local_engine import LocalEngine
from rl_lightning.rollout.sampling import Sampling
from rl_lightning.rollout.vllm_check import check_engine
from rl_lightning.rollout.vllm_requests import Finished, Request, requests_of, rollout_of
from rl_lightning.types import PromptBatch, Rollout, UserError, require

_COLDEST = 0.01
"""vLLM raises lower temperatures to this one, in a warning only."""


class RunningVLLM(Protocol):
    """A vLLM that has been started, in this process or elsewhere.

    Attributes:
        name: for messages.
        tokens: the longest sequence that it takes, prompt and completion.
        rows: sequences at once, where no setting says how many.
        remedy: what to do where it is another model's, for messages.
    """

    name: str
    tokens: int
    rows: int
    remedy: str

    def generate(self, requests: Sequence[Request], rows_at_once: int) -> Iterator[Finished]:
        """Sample completions; yields each as it ends."""
        ...

    def close(self) -> None:
        """Free what was started or loaded."""
        ...


class VLLMEngine(RolloutEngine):
    """Samples training rollouts by a vLLM, evaluations by `LocalEngine`, whose draws make them paired.

    vLLM is started or asked at the first `sync_weights`, so that a run that only evaluates does without it.

    Args:
        rollout_seconds: time limit of a rollout, of starting, and of a change of weights, in seconds; above 0.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, rollout_seconds: float) -> None:
        require("model.engine.rollout_seconds", rollout_seconds, rollout_seconds > 0, "above 0")
        self.rollout_seconds = rollout_seconds
        self._local = LocalEngine()
        self._running: RunningVLLM | None = None

    def evaluator(self) -> RolloutEngine:
        """The policy itself; see `RolloutEngine`."""
        return self._local.evaluator()

    def start(self, policy: Policy, plan: Plan | None = None, limits: MemoryLimits | None = None) -> None:
        """Start the engine of evaluations; see `RolloutEngine`.

        Raises:
            UserError: the policy has no adapters, or is on several devices.
        """
        if policy.trains_all or len(set(policy.layer_devices)) > 1:
            raise UserError(
                f"model.engine: {type(self).__name__} samples from a policy with adapters on one device; with lora_r 0 or "
                "devices_per_replica use model.engine: null"
            )
        self._local.start(policy, plan, limits)
        self._policy, self._plan = policy, plan
        self._limits = limits

    @abstractmethod
    def _ready(self) -> RunningVLLM:
        """A vLLM that samples from this model."""

    @abstractmethod
    def _give_weights(self) -> None:
        """Let it sample from the policy's present weights."""

    def sync_weights(self) -> None:
        """Give vLLM the policy's weights; see `RolloutEngine`.

        Raises:
            UserError: vLLM does not take them; at the first call also: it samples from another model; see `check_engine`.
        """
        if self._running is None:
            running = self._running = self._ready()
            try:
                check_engine(self, self._policy, running.tokens, running.name, running.remedy)
            except UserError:  # whoever goes on after the line must not sample from a refused engine
                self.close()
                raise
        self._give_weights()

    def generate(
        self, prompts: PromptBatch, sampling: Sampling, draws: Tensor | None, on_finished: OnFinished | None = None
    ) -> Rollout:
        """Sample completions; see `RolloutEngine`. A row's seed comes from its first draw. With top_p and min_p together, min_p is
        applied first. If memory runs out in this process, `rollout_rows` is halved and all rows are sampled again.

        Raises:
            UserError: vLLM fails, takes too long, or returns a log-prob that is not finite.
        """
        running, limits = self._running, self._limits
        assert running is not None, "sync_weights comes first"
        longest = int(prompts.prompt_lengths.max()) + sampling.max_new_tokens
        require(
            "model.engine: tokens of prompt and completion",
            longest,
            longest <= running.tokens,
            f"at most {running.tokens}, as planned",
        )
        require(
            "sampling.temperature", sampling.temperature, sampling.temperature >= _COLDEST, "at least 0.01 for vLLM"
        )
        requests = requests_of(prompts, sampling, draws, self._policy.eos_token_ids.tolist())
        if limits is None:
            rows = running.rows if sampling.max_rollout_rows == "auto" else sampling.max_rollout_rows
            return self._sample(running, prompts, requests, rows, on_finished)
        limit = limits.rollout_rows
        return halve_on_oom(limit, lambda: self._sample(running, prompts, requests, limit.value, on_finished))

    def _sample(
        self,
        running: RunningVLLM,
        prompts: PromptBatch,
        requests: list[Request],
        rows: int,
        on_finished: OnFinished | None,
    ) -> Rollout:
        found: dict[int, Finished] = {}
        texts = [""] * len(requests)
        for each in running.generate(requests, rows):
            found[each.row] = each
            texts[each.row] = self._policy.decode_text(torch.tensor(each.tokens[: len(each.tokens) - each.ended]))
            if on_finished is not None:
                on_finished(each.row, texts[each.row])
        return rollout_of(prompts, [found[row] for row in range(len(requests))], texts, self._policy.pad_token_id)

    def close(self) -> None:
        """Free what vLLM holds; see `RolloutEngine`."""
        self._local.close()
        if self._running is not None:
            running, self._running = self._running, None
            running.close()
