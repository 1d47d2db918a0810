"""How hard a problem is, where its task says so, in a few levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

LADDER = "level"
"""The knob that a problem's level on its task's ladder is; its values are never joined."""

MOST_LEVELS = 4
"""A knob with more values than this is cut into so many ranges of about as many problems."""


def level_of(entry: Mapping[str, Any]) -> dict[str, int]:
    """The knobs that reasoning-gym names under `difficulty`, with this problem's own values where those are whole numbers.

    Args:
        entry: reasoning-gym's item.
    """
    metadata = entry.get("metadata") or {}
    difficulty = metadata.get("difficulty")
    if not isinstance(difficulty, dict):
        return {}
    values = {knob: metadata.get(knob, given) for knob, given in difficulty.items()}
    return {knob: value for knob, value in values.items() if type(value) is int}


def levels(problems: Sequence[Mapping[str, int]]) -> dict[str, list[int]]:
    """Levels of one task's problems, easiest value first within a knob.

    Args:
        problems: (n,) each one's knobs, as `level_of` gives them.

    Returns:
        name, such as "level 0", "num_terms 3" or "num_terms 5-6", to the places of its problems; a knob that never varies
        gives none.
    """
    found: dict[str, list[int]] = {}
    for knob in sorted({knob for problem in problems for knob in problem}, key=lambda knob: (knob != LADDER, knob)):
        counts = Counter(problem[knob] for problem in problems if knob in problem)
        if len(counts) < 2:
            continue
        for low, high in _ranges(counts, len(counts) if knob == LADDER else MOST_LEVELS):
            name = f"{knob} {low}" if low == high else f"{knob} {low}-{high}"
            found[name] = [place for place, p in enumerate(problems) if knob in p and low <= p[knob] <= high]
    return found


def _ranges(counts: Counter[int], most: int) -> list[tuple[int, int]]:
    """Neighbouring values joined until there are few enough; the smallest pair of neighbours first."""
    parts = [(value, value, counts[value]) for value in sorted(counts)]
    while len(parts) > most:
        at = min(range(len(parts) - 1), key=lambda i: parts[i][2] + parts[i + 1][2])
        (low, _, one), (_, high, other) = parts[at : at + 2]
        parts[at : at + 2] = [(low, high, one + other)]
    return [(low, high) for low, high, _ in parts]
