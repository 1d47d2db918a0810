"""What stalls GRPO, told from the figures of the last steps, in words, with the figure and the knob.

Each rule looks at a `History` and gives its sentence, or None. The thresholds are meant to be silent on any run that learns:
shares of a half and more, differences that a few steps' noise does not make.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

Figures = Mapping[str, float]
"""A step's metrics by name; see docs/metrics.md. `left` is the share of the run's steps that is still to come."""

MOST, MOST_RIGHT = 0.5, 0.7
"""Shares of groups or completions."""
SOLVED = 0.8
"""Share of exact answers from which on a policy that no longer varies, or groups that are all right, are success."""
NO_GAIN = 0.02
"""Accuracy or share that counts as standing still."""
LONGER = 1.5
ENTROPY_LEFT = 0.2
"""Of the entropy at the start."""
GAP = 0.1
"""Nats a token; rounding of 16-bit and 4-bit arithmetic stays below 0.05."""
STILL = 1e-6
"""Root mean square by which LoRA's B matrices move in a window, where a learning rate of 1e-7 would move them further."""

_NAMES = frozenset(
    {
        *("reward/mean", "reward/exact", "reward/well_formed", "completion/tokens", "completion/truncated", "left"),
        *(
            "policy/entropy",
            "policy/sampler_gap",
            "policy/adapter_rms",
            "policy/learning_rate",
            "policy/trained_tokens",
        ),
    }
)


@dataclass
class History:
    """What the rules look at.

    Attributes:
        window: steps that a rule averages over.
        recent: the figures of the last 2 * window steps, oldest first.
        start: means over the first `window` steps; empty before their end.
        evaluations: of one suite, oldest first: step, suite, accuracy, standard_error, and the mean reward of the window before,
            which is missing at step 0.
        peak_rate: the highest learning rate so far.
    """

    window: int
    recent: list[dict[str, float]] = field(default_factory=list)
    start: dict[str, float] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    peak_rate: float = 0.0

    def add(self, figures: Figures) -> None:
        """One more step."""
        kept = {k: v for k, v in figures.items() if k in _NAMES or k.endswith(("/dead_wrong", "/dead_right"))}
        self.recent = [*self.recent, kept][-2 * self.window :]
        self.peak_rate = max(self.peak_rate, figures.get("policy/learning_rate", 0.0))
        if not self.start and len(self.recent) >= self.window:  # more where the window was set anew
            self.start = {name: self.mean(name) for name in _NAMES}

    def add_evaluation(self, step: int, suite: str, accuracy: float, standard_error: float) -> None:
        """One more evaluation of the held-out problems; one of another suite begins anew."""
        self.evaluations = [each for each in self.evaluations if each["suite"] == suite]
        reward = {"reward": self.mean("reward/mean")} if step and self.recent else {}
        figures = {"step": step, "suite": suite, "accuracy": accuracy, "standard_error": standard_error}
        self.evaluations.append({**figures, **reward})

    def last(self, name: str, windows_ago: int = 0) -> list[float]:
        """A figure in a window's steps, where they have it."""
        end = len(self.recent) - windows_ago * self.window
        return [row[name] for row in self.recent[max(end - self.window, 0) : end] if name in row]

    def mean(self, name: str, windows_ago: int = 0) -> float:
        """The figure's mean over a window; NaN, which no rule takes for anything, where less than half of its steps have it."""
        values = self.last(name, windows_ago)
        return fmean(values) if 2 * len(values) >= min(self.window, len(self.recent)) > 0 else math.nan

    def before(self, name: str) -> list[float]:
        """The figure's means to compare with: at the start, and in the window before."""
        full = len(self.recent) == 2 * self.window
        return [self.start.get(name, math.nan), *([self.mean(name, 1)] if full else [])]


def too_hard(h: History) -> str | None:
    """Most groups are all wrong."""
    share = h.mean("groups/dead_wrong")
    if not share > MOST:
        return None
    names = {name for row in h.recent for name in row if name.endswith("/dead_wrong")} - {"groups/dead_wrong"}
    tasks = {name.split("/")[1]: h.mean(name) for name in names}
    worst = sorted((t for t in tasks if tasks[t] > MOST), key=lambda t: (-tasks[t], t))[:4]
    where = f" ({', '.join(f'{task} {tasks[task]:.0%}' for task in worst)})" if worst else ""
    return (
        f"in {share:.0%} of the groups every answer is wrong and earns the same, so they teach nothing{where}: too hard; make "
        "the task easier (data.datasets.<task>.config), let data.curriculum do it, pay for partial credit (model.reward), or "
        "sample more (model.sampling.num_generations; model.sampling.max_resample replaces such groups)"
    )


def too_easy(h: History) -> str | None:
    """Most groups are all right, from the start or with most of the run to come."""
    share = h.mean("groups/dead_right")
    early = h.start["reward/exact"] > SOLVED or h.recent[-1].get("left", 0) > MOST
    if not (share > MOST_RIGHT and early):
        return None
    return (
        f"in {share:.0%} of the groups every answer is right, so they teach nothing: too easy; make the tasks harder "
        "(data.datasets.<task>.config), or end the run here (trainer.max_steps)"
    )


def truncated(h: History) -> str | None:
    """Most completions are cut off."""
    share = h.mean("completion/truncated")
    if not share > MOST:
        return None
    return (
        f"{share:.0%} of the completions are cut off before their answer: raise model.sampling.max_new_tokens, or leave them "
        "out of the loss (model.objective.mask_truncated_completions)"
    )


def format_missing(h: History) -> str | None:
    """Hardly any think and answer tags, and not getting more."""
    share, values = h.mean("reward/well_formed"), h.last("reward/well_formed")
    if not (share < 1 - SOLVED and h.mean("reward/exact") < MOST):
        return None
    half = len(values) // 2
    if fmean(values[half:]) > fmean(values[:half]) + NO_GAIN:
        return None
    return (
        f"only {share:.0%} of the completions are one <think> section and one <answer>: ask for them in data.system_prompt, "
        "pay for them (model.reward, format), or use an instruction-tuned model"
    )


def entropy_collapsed(h: History) -> str | None:
    """The policy no longer varies, and is not right."""
    now, start, exact = h.mean("policy/entropy"), h.start["policy/entropy"], h.mean("reward/exact")
    if not (now < ENTROPY_LEFT * start and exact < SOLVED and _stands(h, "reward/exact")):
        return None
    return (
        f"the policy's entropy fell from {start:.3f} to {now:.3f} nats a token while {exact:.0%} of its samples are right: it "
        "writes the same every time; lower model.learning_rate, raise model.objective.epsilon_high or "
        "model.sampling.temperature, or hold it to the base (model.objective.beta)"
    )


def length_runaway(h: History) -> str | None:
    """Longer and longer, and no better."""
    now = h.mean("completion/tokens")
    for tokens, exact in zip(h.before("completion/tokens"), h.before("reward/exact"), strict=True):
        if now > LONGER * tokens and h.mean("reward/exact") < exact + NO_GAIN:
            return (
                f"completions grew from {tokens:.0f} to {now:.0f} tokens while the share of right samples stands at "
                f"{h.mean('reward/exact'):.0%}: use model.objective.loss_type dr_grpo or dapo, lower "
                "model.sampling.max_new_tokens, or pay for brevity (a model.reward of your own)"
            )
    return None


def reward_without_accuracy(h: History) -> str | None:
    """The samples earn more, and the held-out problems are answered worse than before."""
    if not h.evaluations or "reward" not in (now := h.evaluations[-1]):
        return None
    for then in h.evaluations[:-1]:
        reward = then.get("reward", h.start["reward/mean"])
        noise = 2 * math.hypot(then["standard_error"], now["standard_error"])
        if now["accuracy"] < then["accuracy"] - noise and now["reward"] > reward + NO_GAIN:
            return (
                f"the reward rose from {reward:.2f} to {now['reward']:.2f} while held-out accuracy fell from "
                f"{then['accuracy']:.2f} (step {then['step']:.0f}) to {now['accuracy']:.2f}: it pays for something other than "
                "right answers (read rollouts/); give exact more weight in model.reward, widen data.datasets.<task>.config, or "
                "lower model.learning_rate"
            )
    return None


def sampler_apart(h: History) -> str | None:
    """Sampler and trainer disagree about the same tokens."""
    gap = h.mean("policy/sampler_gap")
    if not gap > GAP:
        return None
    return (
        f"sampler and trainer differ by {gap:.2f} nats a token, so the policy learns from samples that are not its own: set "
        "model.sampling.top_p 1, top_k 0 and min_p 0, and model.policy.rollout_weights to trained"
    )


def rate_without_effect(h: History) -> str | None:
    """Updates are made, at the full learning rate, and the adapter stays where it is."""
    sizes, rates = h.last("policy/adapter_rms"), h.last("policy/learning_rate")
    if len(sizes) < h.window or not h.mean("policy/trained_tokens") > 0:
        return None
    moved, settled = abs(sizes[-1] - sizes[0]), rates[-1] > h.peak_rate / 2 and rates[0] > 0.9 * rates[-1]
    if not (moved < STILL and settled):  # at the ends of a schedule the rate is low on purpose
        return None
    return (
        f"in {h.window} steps the adapter moved by {moved:.1g} (root mean square) at a learning rate of {rates[-1]:.1g}, which is "
        "no effect: raise model.learning_rate (1e-5 to 1e-3 is usual for LoRA)"
    )


def _stands(h: History, name: str) -> bool:
    """Whether it has not risen over what it was in the window before, nor within this one."""
    values = h.last(name)
    half = len(values) // 2
    return all(h.mean(name) < before + NO_GAIN for before in h.before(name)[1:]) and fmean(values[half:]) < (
        fmean(values[:half]) + NO_GAIN
    )


RULES: Sequence[Callable[[History], str | None]] = (
    too_hard,
    too_easy,
    truncated,
    format_missing,
    entropy_collapsed,
    length_runaway,
    reward_without_accuracy,
    sampler_apart,
    rate_without_effect,
)
