"""The paired differences of every subject to the first, as figures and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rl_lightning.comparison.subjects import Subject
from rl_lightning.evaluation.figures import gains
from rl_lightning.evaluation.past import Row

WHOLE = "all problems"

_SHOWN = ("n", "accuracy", "low", "high", "standard_error", "mean_score", "mean_tokens", "truncated")
_OPTIONAL = ("pass_at_k", "majority_at_k", "constant", "constant_answer")


def compare(subjects: Sequence[Subject]) -> dict[str, Any]:
    """All figures of a comparison.

    Args:
        subjects: the reference first; all of one suite.

    Returns:
        suite, reference (its label) and subjects: each with label, file, step and groups, which are "all problems" and the
        tasks, each with its figures and, but for the reference, difference and difference_score.
    """
    before = {(row["task"], row["index"]): row for row in subjects[0].result["rows"]}
    found = []
    for subject in subjects:
        groups = {}
        for name, rows in _groups(subject.result["rows"]).items():
            known = subject.result["overall"] if name == WHOLE else subject.result["tasks"][name]
            groups[name] = {key: known[key] for key in (*_SHOWN, *_OPTIONAL) if key in known}
            if subject is not subjects[0]:
                groups[name]["difference"], groups[name]["difference_score"] = gains(before, rows)
        found.append(
            {"label": subject.label, "file": str(subject.path), "step": subject.result["step"], "groups": groups}
        )
    return {"suite": subjects[0].result["suite"], "reference": subjects[0].label, "subjects": found}


def table(comparison: Mapping[str, Any]) -> str:
    """One line for every group of problems and subject."""
    subjects = comparison["subjects"]
    width = max(len(subject["label"]) for subject in subjects)
    wide = max(len(name) for name in subjects[0]["groups"])
    head = f"{'problems':{wide}}     n  {'of':{width}}  accuracy  tokens  difference to {comparison['reference']}, 95% interval"
    lines = [head]
    for name in subjects[0]["groups"]:
        for place, subject in enumerate(subjects):
            found = subject["groups"][name]
            group = f"{name:{wide}} {found['n']:5}" if place == 0 else " " * (wide + 6)
            line = f"{group}  {subject['label']:{width}}     {found['accuracy']:.3f} {found['mean_tokens']:7.1f}"
            lines.append(line + _said(found.get("difference")))
        if "constant" in (found := subjects[0]["groups"][name]):
            note = f"always answering {found['constant_answer']!r}"
            lines.append(f"{' ' * (wide + 6)}  {note:{width}}     {found['constant']:.3f}")
    return "\n".join(lines)


def _said(difference: Mapping[str, float] | None) -> str:
    if difference is None:
        return ""
    p = "p < 0.001" if difference["p"] < 0.001 else f"p = {difference['p']:.3f}"
    return f"  {difference['mean']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f}), {p}"


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    tasks = sorted({row["task"] for row in rows})
    return {WHOLE: list(rows), **({t: [r for r in rows if r["task"] == t] for t in tasks} if len(tasks) > 1 else {})}
