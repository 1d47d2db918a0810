"""Measure which levels of reasoning-gym's curricula cannot be used, and why: the table of docs/curriculum.md.

PYTHONHASHSEED=0 python scripts/measure_levels.py 10 [TASK ...]     # seconds per level
"""

from __future__ import annotations

import sys
import time

from rl_lightning.environments.levels import check_levels, left_out
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask, task_names


def main(seconds: float, names: list[str]) -> None:
    """Print a line per task: how long trying its levels took, and what is left out."""
    for name in names or task_names():
        task, began = ReasoningGymTask(name, {}), time.monotonic()
        checks = check_levels({name: task}, {name: task.levels([])}, seconds, workers=2)[name]
        line = left_out(name, checks) or f"datasets.{name}: all of {len(checks)} levels"
        print(f"{time.monotonic() - began:5.1f} s  {line.removeprefix('datasets.')}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
