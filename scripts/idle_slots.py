"""What share of a rollout's slot-time is idle when completions end at very different times: the table of docs/rollouts.md.

python scripts/idle_slots.py
"""

from __future__ import annotations

import heapq

import numpy as np


def idle(completions: int, slots: int, mean: float, limit: int, steps: int = 200) -> tuple[float, float]:
    """Idle share of the slots' time until the last completion ends, and the share of the rollout's time that the last tenth of the
    completions takes alone; lengths are geometric, and a slot takes the next completion when its own ends.

    Args:
        completions: N of a step.
        slots: completions that decode at once.
        mean: mean length before the limit, in tokens.
        limit: most tokens of a completion.
        steps: simulated steps, over which both are averaged.
    """
    rng, found = np.random.default_rng(0), []
    for _ in range(steps):
        lengths = np.minimum(rng.geometric(1 / mean, completions), limit)
        free = [0] * min(slots, completions)
        ends = []
        for length in lengths.tolist():
            ends.append(heapq.heappop(free) + length)
            heapq.heappush(free, ends[-1])
        last = max(ends)
        found.append((1 - lengths.sum() / (len(free) * last), 1 - np.quantile(ends, 0.9) / last))
    return float(np.mean([each[0] for each in found])), float(np.mean([each[1] for each in found]))


def main() -> None:
    """Print the table."""
    print("| completions | slots | mean, limit | slot-time idle | of the time with less than a tenth to go |")
    print("|---:|---:|---|---:|---:|")
    for completions, slots in ((64, 64), (256, 64), (256, 256), (1024, 64), (1024, 256)):
        for mean, limit in ((1000, 2048), (1000, 8192)):
            share, tail = idle(completions, slots, mean, limit)
            print(f"| {completions} | {slots} | {mean}, {limit} | {share:.0%} | {tail:.0%} |")


if __name__ == "__main__":
    main()
