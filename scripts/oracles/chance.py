"""Probabilities, counted."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, differs, groups


def coin_flip(item: Item) -> str | None:
    kind, heads, flips = groups(r"getting (exactly|at least) (\d+) heads in (\d+)", item["question"])
    ways = {0: 1}
    for _ in range(int(flips)):
        ways = {k: ways.get(k, 0) + ways.get(k - 1, 0) for k in range(max(ways) + 2)}
    wanted = [int(heads)] if kind == "exactly" else range(int(heads), int(flips) + 1)
    right = Fraction(sum(ways.get(k, 0) for k in wanted), 2 ** int(flips))
    return None if abs(Fraction(item["answer"]) - right) < right / 10**9 else f"it is {right}"


def dice(item: Item) -> str | None:
    sums: Counter[int] = Counter({0: 1})
    total = 1
    listed, target = groups(r"dice: (.*?)\. What are the odds of rolling (\d+) or higher", item["question"])
    for count, sides in re.findall(r"(\d+)d(\d+)", listed):
        for _ in range(int(count)):
            total *= int(sides)
            sums = Counter(
                {
                    t: sum(sums[t - face] for face in range(1, int(sides) + 1))
                    for t in range(1, max(sums) + int(sides) + 1)
                }
            )
    return differs(item, Fraction(sum(count for value, count in sums.items() if value >= int(target)), total))


ORACLES: dict[str, Oracle] = {"coin_flip": coin_flip, "dice": dice}
