"""Compare upstream's answers with those of independent solvers.

    python scripts/check_oracles.py --problems 500

For each task with a solver in `scripts/oracles`, problems of the training's item seeds; counts those whose answer is wrong, or is
not the only right one where the scorer takes no other, and shows examples. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("PYTHONHASHSEED", "0")
sys.path.insert(0, str(Path(__file__).parents[1]))

from oracles import ORACLES

from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask
from rl_lightning.environments.stream import item_seed


def check(name: str, problems: int, shown: int, limit: float) -> str:
    """One line on a task, and one for each of the first wrong answers."""
    task, wrong, checked, failed = ReasoningGymTask(name), list[str](), 0, Counter[str]()
    began = time.perf_counter()
    for slot in range(problems):
        if time.perf_counter() - began > limit:
            break
        try:
            item = task.item(item_seed("train", 7, slot, 0))
        except Exception as error:  # upstream's generators raise any
            failed[type(error).__name__] += 1
            continue
        checked += 1
        if reason := ORACLES[name](item):
            wrong.append(f"slot {slot}: {item['answer']!r}: {reason}"[:300])
    seconds = time.perf_counter() - began
    lines = [f"{name:26} {checked:5} checked {len(wrong):5} wrong {dict(failed) or ''} {seconds:.1f} s", *wrong[:shown]]
    return "\n    ".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=sorted(ORACLES))
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--shown", type=int, default=3, help="wrong answers to show for each task")
    parser.add_argument("--seconds", type=float, default=120.0, help="a task's time limit")
    args = parser.parse_args()
    for name in args.tasks:
        print(check(name, args.problems, args.shown, args.seconds), flush=True)


if __name__ == "__main__":
    main()
