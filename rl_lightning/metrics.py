"""The numbers of one training step, by the names that `docs/metrics.md` describes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from rl_lightning.types import Problem, PromptBatch, Rollout, Score


def step_metrics(batch: PromptBatch, rollout: Rollout, scores: Sequence[Score], rewards: Tensor) -> dict[str, float]:
    """What was sampled and what it earned; shares are of the N completions."""
    n, lengths = len(scores), rollout.lengths.float()
    return {
        "reward/mean": float(rewards.mean()),
        "reward/exact": sum(s.exact for s in scores) / n,
        "reward/partial": sum(s.partial for s in scores) / n,
        "reward/well_formed": sum(s.well_formed for s in scores) / n,
        "completion/tokens": float(lengths.mean()),
        "completion/tokens_max": float(lengths.max()),
        "completion/truncated": 1 - float(rollout.finished.float().mean()),
        **{f"scoring/{why}": count / n for why, count in Counter(s.failure for s in scores if s.failure).items()},
        **{f"data/skipped_{why}": float(count) for why, count in batch.skipped.items()},
    }


def outcomes(problems: Sequence[Problem], scores: Sequence[Score]) -> list[tuple[Problem, float]]:
    """Of each group its problem and the share of its answers that are right.

    Args:
        problems: B.
        scores: B groups of G.
    """
    size = len(scores) // len(problems)
    return [(p, sum(s.exact for s in scores[i * size : (i + 1) * size]) / size) for i, p in enumerate(problems)]


@dataclass
class Meter:
    """Sums over the micro-batches and updates of one step, and seconds by part."""

    sums: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> None:
        self.sums[name] = self.sums.get(name, 0) + value

    def add_all(self, **values: Any) -> None:
        for name, value in values.items():
            self.add(name, value)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Seconds spent in a part. Each part ends by reading a number from the device, so its work is done by then."""
        began = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - began

    def metrics(self, sampled_tokens: int) -> dict[str, float]:
        """By metric name. Token metrics are means over the tokens that reached the head; there are none in a dead step."""
        metrics = {f"time/{part}": seconds for part, seconds in self.seconds.items()}
        metrics["time/sampled_tokens_per_second"] = sampled_tokens / self.seconds["sample"]
        metrics["policy/skipped_updates"] = float(self.sums.get("skipped_updates", 0))
        metrics["policy/learning_rate"] = self.sums["learning_rate"] / self.sums["updates"]
        tokens, updates = self.sums.get("tokens", 0), self.sums["updates"]
        metrics["policy/trained_tokens"] = float(tokens)
        if tokens:
            metrics["time/trained_tokens_per_second"] = tokens / self.seconds["train"]
            metrics["policy/sampler_gap"] = float(self.sums["sampler_gap"]) * updates / tokens
            metrics |= {f"policy/{k}": float(self.sums[k]) / tokens for k in ("entropy", "clipped_low", "clipped_high")}
            metrics["policy/loss"] = float(self.sums["loss"]) / updates
            if "grad_norm" in self.sums:
                metrics["policy/grad_norm"] = float(self.sums["grad_norm"]) / (
                    updates - metrics["policy/skipped_updates"]
                )
            if "kl" in self.sums:
                metrics["policy/kl"] = float(self.sums["kl"]) / tokens
        return metrics
