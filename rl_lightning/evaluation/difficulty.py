"""Group a task's evaluation problems by difficulty, so that the evaluation can report accuracy by level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

LEVEL = "level"
"""The parameter that holds a problem's level of the curriculum; its values are never joined into ranges."""

MAX_LEVELS = 4
"""A parameter with more different values than this is divided into this many ranges, with about equally many problems each."""


def levels(problems: Sequence[Mapping[str, int]]) -> dict[str, list[int]]:
    """Group one task's problems by each parameter of their difficulty, lowest value first.

    Args:
        problems: (n,) each problem's difficulty parameters, as `Problem.difficulty` has them.

    Returns:
        a group's name, such as "level 0", "num_terms 3" or "num_terms 5-6", to the positions of its problems; a parameter with
        the same value in all problems gives no group.
    """
    found: dict[str, list[int]] = {}
    for name in sorted({name for problem in problems for name in problem}, key=lambda name: (name != LEVEL, name)):
        counts = Counter(problem[name] for problem in problems if name in problem)
        if len(counts) < 2:
            continue
        for low, high in _ranges(counts, len(counts) if name == LEVEL else MAX_LEVELS):
            label = f"{name} {low}" if low == high else f"{name} {low}-{high}"
            found[label] = [position for position, p in enumerate(problems) if name in p and low <= p[name] <= high]
    return found


def _ranges(counts: Counter[int], most: int) -> list[tuple[int, int]]:
    """Join neighbouring values until there are at most `most` ranges, each time the two neighbours with the fewest problems."""
    parts = [(value, value, counts[value]) for value in sorted(counts)]
    while len(parts) > most:
        at = min(range(len(parts) - 1), key=lambda i: parts[i][2] + parts[i + 1][2])
        (low, _, one), (_, high, other) = parts[at : at + 2]
        parts[at : at + 2] = [(low, high, one + other)]
    return [(low, high) for low, high, _ in parts]
