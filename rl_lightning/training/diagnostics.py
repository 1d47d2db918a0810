"""Rules that detect why a GRPO run does not learn, from the metrics of its last steps.

Each rule takes a `History` and returns a sentence with the metric that shows the problem and the setting to change, or None. The
thresholds are meant to be silent on any run that learns: shares of a half and more, and differences larger than the noise of a few
steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

Metrics = Mapping[str, float]
"""A step's metrics by name; see docs/metrics.md. `left` is the share of the run's steps that are still to come."""

MOST, MAX_RIGHT = 0.5, 0.7
"""Shares of groups or completions."""
SOLVED = 0.8
"""From this share of exact answers on, a policy that no longer varies, or groups that are all right, are a success."""
NO_GAIN = 0.02
"""A smaller change than this of an accuracy or a share counts as none."""
LONGER = 1.5
"""Growth of the completions' length, as a factor."""
ENTROPY_LEFT = 0.2
"""Share of the entropy at the start."""
MISMATCH = 0.1
"""Nats per token; rounding in 16-bit and 4-bit arithmetic stays below 0.05."""
STILL = 1e-6
"""Root mean square by which the trained weights move in a window; a learning rate of 1e-7 would already move them further."""

_NAMES = frozenset(
    {
        *("reward/mean", "reward/exact", "reward/well_formed", "completion/tokens", "completion/truncated", "left"),
        *(
            "policy/entropy",
            "policy/logprob_mismatch",
            "policy/moved_rms",
            "policy/learning_rate",
            "policy/trained_tokens",
        ),
    }
)


@dataclass
class History:
    """The metrics and evaluations that the rules look at.

    Attributes:
        window: number of steps that a rule averages over.
        recent: metrics of the last 2 * window steps, oldest first.
        start: means over the first `window` steps; empty until then.
        evaluations: those of one suite, oldest first: step, suite, accuracy, standard_error, and (except at step 0) `reward`,
            the mean reward over the window before.
        peak_rate: the highest learning rate so far.
    """

    window: int
    recent: list[dict[str, float]] = field(default_factory=list)
    start: dict[str, float] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    peak_rate: float = 0.0

    def add(self, metrics: Metrics) -> None:
        """Add the metrics of a step."""
        kept = {
            k: v
            for k, v in metrics.items()
            if k in _NAMES or k.endswith(("/zero_variance_wrong", "/zero_variance_right"))
        }
        self.recent = [*self.recent, kept][-2 * self.window :]
        self.peak_rate = max(self.peak_rate, metrics.get("policy/learning_rate", 0.0))
        if not self.start and len(self.recent) >= self.window:  # more if the window was changed on resuming
            self.start = {name: self.mean(name) for name in _NAMES}

    def add_evaluation(self, step: int, suite: str, accuracy: float, standard_error: float) -> None:
        """Add an evaluation on the held-out problems; one of another suite replaces those before."""
        self.evaluations = [each for each in self.evaluations if each["suite"] == suite]
        reward = {"reward": self.mean("reward/mean")} if step and self.recent else {}
        result = {"step": step, "suite": suite, "accuracy": accuracy, "standard_error": standard_error}
        self.evaluations.append({**result, **reward})

    def last(self, name: str, windows_ago: int = 0) -> list[float]:
        """Return a metric's values in the steps of a window that logged it."""
        end = len(self.recent) - windows_ago * self.window
        return [row[name] for row in self.recent[max(end - self.window, 0) : end] if name in row]

    def mean(self, name: str, windows_ago: int = 0) -> float:
        """Return a metric's mean over a window; NaN, on which no rule fires, if fewer than half of its steps logged it."""
        values = self.last(name, windows_ago)
        return fmean(values) if 2 * len(values) >= min(self.window, len(self.recent)) > 0 else math.nan

    def before(self, name: str) -> list[float]:
        """Return the means that a metric is compared with: at the start, and in the window before the last."""
        full = len(self.recent) == 2 * self.window
        return [self.start.get(name, math.nan), *([self.mean(name, 1)] if full else [])]


def too_hard(h: History) -> str | None:
    """Fire if most groups are all wrong and without reward variance, and it is not for the format alone that they must be."""
    share = h.mean("groups/zero_variance_wrong")
    if not share > MOST or h.mean("reward/well_formed") < NO_GAIN:
        return None
    names = {name for row in h.recent for name in row if name.endswith("/zero_variance_wrong")} - {
        "groups/zero_variance_wrong"
    }
    tasks = {name.split("/")[1]: h.mean(name) for name in names}
    worst = sorted((t for t in tasks if tasks[t] > MOST), key=lambda t: (-tasks[t], t))[:4]
    where = f" ({', '.join(f'{task} {tasks[task]:.0%}' for task in worst)})" if worst else ""
    return (
        f"too hard: in {share:.0%} of the groups every answer is wrong and has the same reward, so there is no gradient{where}; "
        "make the task easier (data.datasets.<task>.config), let data.curriculum do it, reward partial credit (model.reward), or "
        "sample more (model.sampling.num_generations; model.sampling.max_resample replaces such groups)"
    )


def too_easy(h: History) -> str | None:
    """Fire if most groups are all right, from the start or with most of the run still to come."""
    share = h.mean("groups/zero_variance_right")
    early = h.start["reward/exact"] > SOLVED or h.recent[-1].get("left", 0) > MOST
    if not (share > MAX_RIGHT and early):
        return None
    return (
        f"too easy: in {share:.0%} of the groups every answer is right, so there is no gradient; make the tasks harder "
        "(data.datasets.<task>.config), or end the run here (trainer.max_steps)"
    )


def truncated(h: History) -> str | None:
    """Fire if most completions are truncated at the length limit."""
    share = h.mean("completion/truncated")
    if not share > MOST:
        return None
    return (
        f"{share:.0%} of the completions are truncated before their answer: raise model.sampling.max_new_tokens, or exclude "
        "them from the loss (model.objective.mask_truncated_completions)"
    )


def format_missing(h: History) -> str | None:
    """Fire if hardly any completion has the format that is asked for, and their share does not rise."""
    share, values = h.mean("reward/well_formed"), h.last("reward/well_formed")
    if not (share < 1 - SOLVED and h.mean("reward/exact") < MOST):
        return None
    half = len(values) // 2
    if fmean(values[half:]) > fmean(values[:half]) + NO_GAIN:
        return None
    return (
        f"only {share:.0%} of the completions have data.answer_format exactly: show it in worked examples (data.examples: 2) "
        "in model.sft_steps or in every prompt, reward it by degrees (model.reward, format and format_grading), or use a format "
        "that the model knows"
    )


def entropy_collapsed(h: History) -> str | None:
    """Fire if the policy's entropy has collapsed without its answers being right."""
    now, start, exact = h.mean("policy/entropy"), h.start["policy/entropy"], h.mean("reward/exact")
    if not (now < ENTROPY_LEFT * start and exact < SOLVED and _does_not_rise(h, "reward/exact")):
        return None
    return (
        f"the policy's entropy fell from {start:.3f} to {now:.3f} nats per token while {exact:.0%} of its samples are right: it "
        "writes almost the same every time; lower model.learning_rate, raise model.objective.surrogate.epsilon_high or "
        "model.sampling.temperature, or keep it near the base model by a KL term (model.objective.beta)"
    )


def length_runaway(h: History) -> str | None:
    """Fire if completions grow without more right answers."""
    now = h.mean("completion/tokens")
    for tokens, exact in zip(h.before("completion/tokens"), h.before("reward/exact"), strict=True):
        if now > LONGER * tokens and h.mean("reward/exact") < exact + NO_GAIN:
            return (
                f"completions grew from {tokens:.0f} to {now:.0f} tokens while the share of right samples stays at "
                f"{h.mean('reward/exact'):.0%}: use model.objective.loss_type dr_grpo or dapo, lower "
                "model.sampling.max_new_tokens, or reward brevity (your own model.reward)"
            )
    return None


def reward_without_accuracy(h: History) -> str | None:
    """Fire if the reward rises while held-out accuracy falls by more than noise."""
    if not h.evaluations or "reward" not in (now := h.evaluations[-1]):
        return None
    for then in h.evaluations[:-1]:
        reward = then.get("reward", h.start["reward/mean"])
        noise = 2 * math.hypot(then["standard_error"], now["standard_error"])
        if now["accuracy"] < then["accuracy"] - noise and now["reward"] > reward + NO_GAIN:
            return (
                f"the reward rose from {reward:.2f} to {now['reward']:.2f} while held-out accuracy fell from "
                f"{then['accuracy']:.2f} (step {then['step']:.0f}) to {now['accuracy']:.2f}: it rewards something other than "
                "right answers (read rollouts/); give exact more weight in model.reward, widen data.datasets.<task>.config, or "
                "lower model.learning_rate"
            )
    return None


def sampler_mismatch(h: History) -> str | None:
    """Fire if sampler and trainer give clearly different log-probs to the same tokens."""
    mismatch = h.mean("policy/logprob_mismatch")
    if not mismatch > MISMATCH:
        return None
    return (
        f"log-probs of sampler and trainer differ by {mismatch:.2f} nats per token, so training is off-policy: set "
        "model.sampling.top_p 1, top_k 0 and min_p 0, and where there are adapters model.policy.rollout_weights to unmerged"
    )


def rate_without_effect(h: History) -> str | None:
    """Fire if updates at the full learning rate do not move what is trained."""
    sizes, rates = h.last("policy/moved_rms"), h.last("policy/learning_rate")
    if len(sizes) < h.window or not h.mean("policy/trained_tokens") > 0:
        return None
    moved, settled = abs(sizes[-1] - sizes[0]), rates[-1] > h.peak_rate / 2 and rates[0] > 0.9 * rates[-1]
    if not (moved < STILL and settled):  # at the start and end of a schedule the rate is low on purpose
        return None
    return (
        f"in {h.window} steps the trained weights moved by {moved:.1g} (root mean square) at a learning rate of "
        f"{rates[-1]:.1g}, so training has no effect: raise model.learning_rate (usual are 1e-5 to 1e-3 for LoRA, and 1e-6 to 1e-5 "
        "for all weights)"
    )


def _does_not_rise(h: History, name: str) -> bool:
    """Whether a metric has risen neither since the window before nor within the last one."""
    values = h.last(name)
    half = len(values) // 2
    return all(h.mean(name) < before + NO_GAIN for before in h.before(name)[1:]) and fmean(values[half:]) < (
        fmean(values[:half]) + NO_GAIN
    )


RULES: Sequence[Callable[[History], str | None]] = (
    format_missing,
    too_hard,
    too_easy,
    truncated,
    entropy_collapsed,
    length_runaway,
    reward_without_accuracy,
    sampler_mismatch,
    rate_without_effect,
)
