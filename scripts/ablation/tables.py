"""Compute means over seeds and paired differences from an experiment's results, and write them as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from machine import describe_machine

from ablation.experiments import Experiment
from ablation.results import Result, Results
from rl_lightning.statistics import RunMean, mean_over_runs


@dataclass(frozen=True)
class Measure:
    """A value of each run by which variants are compared.

    Attributes:
        title: the column's title.
        of: function that returns the value, in [0, 1].
    """

    title: str
    of: Callable[[Result], float]


def equal_completions(results: Results) -> int:
    """The most completions that every run has sampled."""
    return int(min(result.last["sampled"] for mine in results.values() for result in mine))


def measures(results: Results) -> list[Measure]:
    """Accuracy after equal time, after equal numbers of completions, and as a mean over the time."""
    seconds, completions = _seconds(results), equal_completions(results)
    return [
        Measure(f"after {seconds:g} s", lambda result: result.accuracy("seconds", seconds)),
        Measure(f"after {completions:,} completions", lambda result: result.accuracy("sampled", completions)),
        Measure(f"mean over the {seconds:g} s", lambda result: result.mean_accuracy("seconds", seconds)),
    ]


def seed_mean(results: Results, variant: str, measure: Measure) -> RunMean:
    """A variant's mean over its seeds."""
    return mean_over_runs([measure.of(result) for result in results[variant]], least=0, most=1)


def difference_to_first(results: Results, variant: str, measure: Measure) -> RunMean | None:
    """Mean difference to the first variant, seed by seed, over the seeds that both have; None where they share none."""
    reference = {result.seed: measure.of(result) for result in next(iter(results.values()))}
    pairs = [measure.of(result) - reference[result.seed] for result in results[variant] if result.seed in reference]
    return mean_over_runs(pairs, least=-1, most=1) if pairs else None


def table(experiment: Experiment, results: Results) -> str:
    """Two tables and the machine that the runs were made on, as Markdown."""
    first, *others = results
    columns = measures(results)
    parts = [_accuracies(results, columns)]
    if others:
        parts.append(f"Difference to {first}, seed by seed:")
        parts.append(_differences(results, others, columns))
    machines = sorted({describe_machine(result.machine) for mine in results.values() for result in mine})
    return "\n\n".join([experiment.about.strip(), *parts, *machines])


def _accuracies(results: Results, columns: list[Measure]) -> str:
    titles = ["variant", "seeds", "before", *(c.title for c in columns), "steps", "completions", "with an advantage"]
    rows = []
    for name, mine in results.items():
        steps, sampled, with_advantage = (
            fmean(result.last[key] for result in mine) for key in ("step", "sampled", "with_advantage")
        )
        accuracies = [_with_interval(seed_mean(results, name, column), ".3f") for column in columns]
        before = fmean(result.evaluations[0]["accuracy"] for result in mine)
        counts = [f"{steps:.0f}", f"{sampled:,.0f}", f"{with_advantage / sampled:.0%}"]
        rows.append([name, str(len(mine)), f"{before:.3f}", *accuracies, *counts])
    return _markdown(titles, rows)


def _differences(results: Results, others: list[str], columns: list[Measure]) -> str:
    rows = []
    for name in others:
        found = [difference_to_first(results, name, column) for column in columns]
        rows.append([name, *("no seed in common" if d is None else _with_verdict(d) for d in found)])
    return _markdown(["variant", *(column.title for column in columns)], rows)


def _with_verdict(found: RunMean) -> str:
    text = _with_interval(found, "+.3f")
    return f"{text}: within noise" if found.within_noise else f"**{text}**"


def _with_interval(found: RunMean, form: str) -> str:
    mean, low, high = (format(value, form) for value in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"


def _markdown(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _seconds(results: Results) -> float:
    return float(next(iter(results.values()))[0].settings["seconds"])
