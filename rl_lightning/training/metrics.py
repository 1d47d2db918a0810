"""Compute the metrics of a training step, by the names that `docs/metrics.md` describes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rl_lightning.distributed import Collective, SingleProcess
from rl_lightning.types import RolloutBatch


def rollout_metrics(rollouts: RolloutBatch) -> dict[str, float]:
    """Metrics of the sampled completions and their rewards; shares are of the N completions."""
    rollout, scores = rollouts.rollout, rollouts.scores
    n, lengths = len(scores), rollout.lengths.float()
    return {
        "reward/mean": float(rollouts.rewards.mean()),
        "reward/exact": sum(s.exact for s in scores) / n,
        "reward/partial": sum(s.partial for s in scores) / n,
        "reward/well_formed": sum(s.well_formed for s in scores) / n,
        "reward/format": sum(s.format for s in scores) / n,
        "completion/tokens": float(lengths.mean()),
        "completion/tokens_max": float(lengths.max()),
        "completion/truncated": float(rollout.truncated.float().mean()),
        "completion/not_finite": float(rollout.not_finite.float().mean()),
        **{f"scoring/{why}": count / n for why, count in Counter(s.failure for s in scores if s.failure).items()},
        **{f"data/skipped_{why}": float(count) for why, count in rollouts.prompts.skipped.items()},
    }


def waiting(spent: Sequence[Mapping[str, float]], step: float) -> dict[str, float]:
    """How several ranks waited for each other in a step.

    An operation ends on all ranks together, so the rank that comes last does not wait: what it spends is communication.

    Args:
        spent: of each rank, the seconds in each collective operation; the ranks call the same ones.
        step: seconds of the step.
    """
    communicating = {name: min(each[name] for each in spent) for name in spent[0]}
    working = [step - sum(each.values()) for each in spent]
    idle = [sum(each.values()) - sum(communicating.values()) for each in spent]
    return {
        "time/ranks": float(len(spent)),
        "time/ranks_waiting": sum(idle) / len(spent) / step,
        "time/slowest_rank": max(working) * len(spent) / sum(working),
        "time/all_reduce": communicating.get("sum", 0.0),
    }


@dataclass
class StepMeter:
    """Sums over the micro-batches and updates of one step, and wall time by part of the step.

    Attributes:
        collective: the ranks that take part in the step, which begins when the meter is made.
        sums: numbers or scalar tensors by name.
        seconds: by part of the step; after `finish` of the rank that took the longest.
    """

    collective: Collective = field(default_factory=SingleProcess)
    sums: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = dict(self.collective.seconds)
        # The sums of a single attempt are a meter too, which is made within a part that is being timed.
        self._began = time.perf_counter() if self.collective.world_size > 1 else 0.0
        self._of_ranks: dict[str, float] = {}

    def add(self, name: str, value: Any) -> None:
        """Add a number or a scalar tensor, on any device and without gradient, to the sum of that name, which starts at 0."""
        self.sums[name] = self.sums.get(name, 0) + value

    def add_all(self, **values: Any) -> None:
        """Add several values by name; see `add`."""
        for name, value in values.items():
            self.add(name, value)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Measure the seconds of a part. Each part ends with reading a value from the device, so the GPU's work is finished by
        then."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def finish(self) -> dict[str, float]:
        """End the step on all ranks: `seconds`, of the rank that took the longest for each part."""
        spent = {name: total - self._before.get(name, 0.0) for name, total in self.collective.seconds.items()}
        of_all = self.collective.gather((self.seconds, spent))
        self.seconds = {part: max(seconds[part] for seconds, _ in of_all) for part in self.seconds}
        if self.collective.world_size > 1:
            self._of_ranks = waiting([spent for _, spent in of_all], time.perf_counter() - self._began)
        return dict(self.seconds)

    def metrics(self, sampled_tokens: int) -> dict[str, float]:
        """The metrics by name. Token metrics are means over the tokens that were forwarded for the update; they are missing if none
        was: no group has reward variance, and neither KL nor entropy bonus gives a gradient."""
        metrics = {f"time/{part}": seconds for part, seconds in self.seconds.items()} | self._of_ranks
        metrics["time/sampled_tokens_per_second"] = sampled_tokens / self.seconds["sample"]
        metrics["policy/skipped_updates"] = float(self.sums.get("skipped_updates", 0))
        metrics["policy/learning_rate"] = self.sums["learning_rate"] / self.sums["updates"]
        tokens, updates = self.sums.get("tokens", 0), self.sums["updates"]
        metrics["policy/trained_tokens"] = float(tokens)
        if tokens:
            metrics["time/trained_tokens_per_second"] = tokens / self.seconds["train"]
            if "logprob_mismatch" in self.sums:
                metrics["policy/logprob_mismatch"] = float(self.sums["logprob_mismatch"]) * updates / tokens
            metrics |= {f"policy/{k}": float(self.sums[k]) / tokens for k in ("entropy", "clipped_low", "clipped_high")}
            metrics["policy/loss"] = float(self.sums["loss"]) / updates
            if "grad_norm" in self.sums:
                metrics["policy/grad_norm"] = float(self.sums["grad_norm"]) / (
                    updates - metrics["policy/skipped_updates"]
                )
            if "kl" in self.sums:
                metrics["policy/kl"] = float(self.sums["kl"]) / tokens
        return metrics
