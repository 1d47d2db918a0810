"""Choose the charts of the page, and compute their points; long curves are decimated without hiding their extremes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rl_lightning.report.run_files import Run

MOST_POINTS = 400
"""Maximum number of points of a curve; a chart is about that many pixels wide."""
COLOURS = 4
"""Colours that colour-blind people can tell apart; with more lines than that they come again, dashed."""
MEANING = {
    "reward/exact": "good",
    "groups/zero_variance_right": "good",
    "groups/zero_variance_wrong": "bad",
}
"""Metrics whose colour says right or wrong, as everywhere on the page."""


@dataclass(frozen=True)
class Chart:
    """A chart of a run's metrics.

    Args:
        title: its heading.
        unit: unit of the y axis; "share" is shown as a percentage from 0 to 100.
        lines: metric and label of each line.
        about: how to read it, in one sentence.
        zero: whether the y axis starts at 0.
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    about: str
    zero: bool = True


BESIDE = (
    Chart(
        "Training samples",
        "share",
        (
            ("reward/exact", "exactly right"),
            ("reward/well_formed", "well-formed"),
            ("completion/truncated", "truncated"),
        ),
        "Share of a rollout's completions, which are drawn at the training temperature.",
    ),
    Chart(
        "Reward",
        "",
        (("reward/mean", "mean"),),
        "Mean reward of a rollout's completions, as the run's reward class gives it.",
    ),
    Chart(
        "Groups by reward variance",
        "share",
        (
            ("groups/with_variance", "with variance"),
            ("groups/zero_variance_right", "all right"),
            ("groups/zero_variance_wrong", "all wrong"),
        ),
        "Share of prompts whose completions have different rewards. Where all have the same, right or wrong, there is no gradient.",
    ),
    Chart(
        "Length of a completion",
        "tokens",
        (("completion/tokens", "mean"), ("completion/tokens_max", "longest")),
        "Tokens per completion, EOS token included.",
    ),
)
"""The charts of training that stand beside held-out accuracy."""

TRAINING = (
    Chart(
        "Samples of the supervised steps",
        "samples",
        (("sft/samples", "right and well-formed"),),
        "Completions that a step of model.sft_steps trained on; only in such steps.",
    ),
    Chart(
        "Groups of a rollout",
        "groups",
        (("groups/sampled", "sampled"), ("groups/kept", "kept")),
        "Groups that were sampled, and those that the update is made of; with dynamic sampling the rest costs time only.",
    ),
    Chart("Entropy", "nats", (("policy/entropy", "policy"),), "Mean entropy of the policy at the trained tokens."),
    Chart(
        "KL to the reference model",
        "nats",
        (("policy/kl", "estimate"),),
        "Mean estimate per token; only if beta is set.",
    ),
    Chart(
        "Log-prob mismatch",
        "nats",
        (("policy/logprob_mismatch", "mean difference"),),
        "Mean absolute difference of the sampler's and the trainer's log-probability of the same token.",
    ),
    Chart(
        "Time per rollout",
        "seconds",
        (("time/sample", "sample"), ("time/score", "score"), ("time/train", "train")),
        "Seconds to sample a rollout's completions, to score them, and to make all optimizer steps with them.",
    ),
    Chart(
        "Speed",
        "tokens per second",
        (("time/sampled_tokens_per_second", "sampled"), ("time/trained_tokens_per_second", "trained")),
        "Completion tokens per second.",
    ),
    Chart(
        "Several ranks",
        "share",
        (("time/ranks_waiting", "waiting"),),
        "Share of the time that the ranks wait for each other, on average.",
    ),
    Chart(
        "Memory",
        "GB",
        (("memory/peak_gb", "peak so far"),),
        "On a GPU the allocator's peak plus CUDA's context; on a CPU the process's resident memory.",
    ),
    Chart("Gradient norm", "", (("policy/grad_norm", "before clipping"),), "Norm of the gradient of each update."),
    Chart("Learning rate", "", (("policy/learning_rate", "as used"),), "Learning rate of each update."),
)


def page_charts(runs: list[Run]) -> dict[str, list[dict[str, Any]]]:
    """Make all charts of the page.

    Returns:
        learning: held-out accuracy with 95% intervals, and beside it what training reaches on its own samples; tasks: accuracy by
        task, if there are several; training: for one run related metrics in one chart, for several runs a chart per metric;
        other: a chart for every metric that no other chart shows, except metrics of single tasks.
    """
    tasks = sorted({task for run in runs for e in run.evaluations for task in e["tasks"]})
    beside = list(_charts(runs, BESIDE))
    main = {chart.lines[0][0] for chart in BESIDE}
    return {
        "learning": [c for c in [_accuracy_chart(runs, None)] if c["lines"]]
        + [c for c in beside if c["metric"] in main],
        "tasks": [_accuracy_chart(runs, task) for task in tasks] if len(tasks) > 1 else [],
        "training": [
            *(c for c in beside if c["metric"] not in main),
            *_charts(runs, (*TRAINING, *_curriculum(runs))),
        ],
        "other": list(_charts(runs, _others(runs))),
    }


def _accuracy_chart(runs: list[Run], task: str | None) -> dict[str, Any]:
    lines = []
    for colour, run in enumerate(runs):
        found = [
            (e["step"], e["overall"] if task is None else e["tasks"][task])
            for e in run.evaluations
            if task is None or task in e["tasks"]
        ]
        if not found:
            continue
        lines.append(
            {
                "label": run.name if len(runs) > 1 else "accuracy",
                **(look(colour) if len(runs) > 1 else {"colour": "good"}),
                "x": [step for step, _ in found],
                "y": [_number(metrics["accuracy"]) for _, metrics in found],
                "low": [_number(metrics["low"]) for _, metrics in found],
                "high": [_number(metrics["high"]) for _, metrics in found],
            }
        )
    about = "Share of the held-out problems that are answered exactly, with 95% intervals; training never sees them."
    title = task or "Held-out accuracy"
    chart = {"title": title, "unit": "share", "zero": True, "about": "" if task else about, "lines": lines}
    return {**chart, "text": _in_words(lines, "share"), "points": True}


def look(place: int) -> dict[str, Any]:
    """Return the name of a line's colour in page.css, and whether it is dashed."""
    return {"colour": f"c{place % COLOURS}", "dashed": place % (2 * COLOURS) >= COLOURS}


def _curriculum(runs: list[Run]) -> list[Chart]:
    """Return charts of the level and success of each task with levels, one line per task; none without a curriculum."""
    names = sorted({name for run in runs for name in run.metrics if name.startswith("curriculum/")})
    lines = {
        kind: tuple((name, name.split("/")[1]) for name in names if name.endswith(f"/{kind}"))
        for kind in ("level", "success")
    }
    success = "Share of right samples at the task's level. Above curriculum.high it goes up a level, below curriculum.low down."
    charts = [
        Chart("Level of difficulty", "level", lines["level"], "Each task's difficulty level; 0 is the easiest."),
        Chart("Success at that level", "share", lines["success"], success),
    ]
    return [chart for chart in charts if chart.lines]


def _others(runs: list[Run]) -> list[Chart]:
    shown = {metric for chart in (*BESIDE, *TRAINING) for metric, _ in chart.lines}
    names = sorted({name for run in runs for name in run.metrics} - shown)
    wanted = [n for n in names if not n.startswith("eval/") and n.count("/") < 2]
    return [Chart(name, "", ((name, name.partition("/")[2] or name),), "") for name in wanted]


def _charts(runs: list[Run], wanted: Iterable[Chart]) -> Iterator[dict[str, Any]]:
    for chart in wanted:
        if len(runs) == 1:
            yield from _filled(chart, [(runs[0], metric, label) for metric, label in chart.lines], chart.title)
            continue
        for metric, label in chart.lines:
            title = chart.title if len(chart.lines) == 1 else f"{chart.title}: {label}"
            yield from _filled(chart, [(run, metric, run.name) for run in runs], title)


def _filled(chart: Chart, wanted: list[tuple[Run, str, str]], title: str) -> Iterator[dict[str, Any]]:
    """Yield the chart with its points, if there are any."""
    lines, notes = [], []
    compared = len({run.name for run, _, _ in wanted}) > 1
    plain = [metric for _, metric, _ in wanted if compared or metric not in MEANING]
    for place, (run, metric, label) in enumerate(wanted):
        steps, values = run.metrics.get(metric, ([], []))
        if not steps:
            continue
        drawn = look(place if compared else plain.index(metric)) if metric in plain else {"colour": MEANING[metric]}
        lines.append({"label": label, **drawn, **decimate(steps, values)})
        if missing := sum(not math.isfinite(value) for value in values):
            notes.append(f"{label}: {missing} of {len(values)} values are not finite and leave gaps.")
    if lines:
        about = " ".join([chart.about, *dict.fromkeys(notes)]).strip()
        filled = {"title": title, "unit": chart.unit, "zero": chart.zero, "about": about, "lines": lines}
        yield {**filled, "metric": wanted[0][1], "text": _in_words(lines, chart.unit), "points": False}


def decimate(steps: list[int], values: list[float]) -> dict[str, list[Any]]:
    """Reduce a curve to at most `MOST_POINTS` points, each the mean of equally many logged steps.

    Returns:
        x and y (None where no value is finite); if points were joined, also low and high, the extremes of each.
    """
    width = -(-len(steps) // MOST_POINTS)
    if width <= 1:
        return {"x": steps, "y": [_number(value) for value in values]}
    line: dict[str, list[Any]] = {"x": [], "y": [], "low": [], "high": []}
    for start in range(0, len(steps), width):
        finite = [value for value in values[start : start + width] if math.isfinite(value)]
        part = steps[start : start + width]
        line["x"].append(part[len(part) // 2])
        line["y"].append(_number(sum(finite) / len(finite)) if finite else None)
        line["low"].append(_number(min(finite)) if finite else None)
        line["high"].append(_number(max(finite)) if finite else None)
    return line


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _in_words(lines: list[dict[str, Any]], unit: str) -> str:
    """Describe a chart for people who cannot see it: where each line starts and ends, and its extremes."""
    parts = []
    for line in lines:
        points = [(x, y) for x, y in zip(line["x"], line["y"], strict=True) if y is not None]
        if not points:
            parts.append(f"{line['label']}: no finite value.")
            continue
        (first, begin), (last, end) = points[0], points[-1]
        low, high = min(y for _, y in points), max(y for _, y in points)
        parts.append(
            f"{line['label']}: {in_unit(begin, unit)} at step {first}, {in_unit(end, unit)} at step {last}; "
            f"lowest {in_unit(low, unit)}, highest {in_unit(high, unit)}."
        )
    return " ".join(parts)


def in_unit(value: float, unit: str) -> str:
    """Format a value with its unit."""
    return f"{value:.1%}" if unit == "share" else f"{value:.3g} {unit}".strip()
