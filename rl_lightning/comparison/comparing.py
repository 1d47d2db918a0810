"""Paired differences of every contender to the first one, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rl_lightning.comparison.contenders import Contender
from rl_lightning.evaluation import Row, condition_differences, paired_differences

ALL_PROBLEMS = "all problems"

_METRICS = ("n", "accuracy", "low", "high", "standard_error", "mean_score", "mean_tokens", "truncated")
_OPTIONAL_METRICS = ("pass_at_k", "majority_at_k", "constant", "constant_answer")


def compare(contenders: Sequence[Contender]) -> dict[str, Any]:
    """Compute everything that `comparison.json` contains.

    Args:
        contenders: the reference first; all of one suite.

    Returns:
        suite, reference (its label) and contenders: each with label, file, step, groups, and `rounds_otherwise` where it ran under
        other conditions than the reference, which may change single completions by rounding. The groups are "all problems" and
        the tasks; each has its metrics and, except for the reference, difference and difference_score.
    """
    before = {(row["task"], row["index"]): row for row in contenders[0].result["rows"]}
    found = []
    for contender in contenders:
        groups = {}
        for name, rows in _groups(contender.result["rows"]).items():
            known = contender.result["overall"] if name == ALL_PROBLEMS else contender.result["tasks"][name]
            groups[name] = {key: known[key] for key in (*_METRICS, *_OPTIONAL_METRICS) if key in known}
            if contender is not contenders[0]:
                accuracy, score = paired_differences(before, rows)
                groups[name]["difference"], groups[name]["difference_score"] = accuracy, score
        said: dict[str, Any] = {"label": contender.label, "file": str(contender.path), "step": contender.result["step"]}
        conditions = (each.result.get("ran_with", {}) for each in (contenders[0], contender))
        if differences := condition_differences(*conditions):
            said["rounds_otherwise"] = differences
        found.append({**said, "groups": groups})
    return {"suite": contenders[0].result["suite"], "reference": contenders[0].label, "contenders": found}


def table(comparison: Mapping[str, Any]) -> str:
    """Format a comparison as text, one line for each group of problems and contender."""
    contenders = comparison["contenders"]
    width = max(len(contender["label"]) for contender in contenders)
    wide = max(len(name) for name in contenders[0]["groups"])
    head = f"{'problems':{wide}}     n  {'of':{width}}  accuracy  tokens  difference to {comparison['reference']}, 95% interval"
    lines = [head]
    for name in contenders[0]["groups"]:
        for place, contender in enumerate(contenders):
            found = contender["groups"][name]
            group = f"{name:{wide}} {found['n']:5}" if place == 0 else " " * (wide + 6)
            line = f"{group}  {contender['label']:{width}}     {found['accuracy']:.3f} {found['mean_tokens']:7.1f}"
            lines.append(line + _in_words(found.get("difference")))
        if "constant" in (found := contenders[0]["groups"][name]):
            note = f"always answering {found['constant_answer']!r}"
            lines.append(f"{' ' * (wide + 6)}  {note:{width}}     {found['constant']:.3f}")
    for contender in contenders:
        if said := contender.get("rounds_otherwise"):
            lines.append(
                f"{contender['label']} was evaluated under other conditions than {comparison['reference']}, so single completions "
                f"may differ by rounding alone: {'; '.join(said)}; --evaluate evaluates all under the same"
            )
    return "\n".join(lines)


def _in_words(difference: Mapping[str, float] | None) -> str:
    if difference is None:
        return ""
    p = "p < 0.001" if difference["p"] < 0.001 else f"p = {difference['p']:.3f}"
    return f"  {difference['mean']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f}), {p}"


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return all rows, and where there are several tasks those of each."""
    tasks = sorted({row["task"] for row in rows})
    return {
        ALL_PROBLEMS: list(rows),
        **({t: [r for r in rows if r["task"] == t] for t in tasks} if len(tasks) > 1 else {}),
    }
