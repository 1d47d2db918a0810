"""Which levels of reasoning-gym's curricula cannot be used, and why: the table of docs/curriculum.md.

PYTHONHASHSEED=0 python scripts/measure_ladders.py 10 [TASK ...]     # seconds a level
"""

from __future__ import annotations

import sys
import time

from rl_lightning.tasks.generator import Task, task_names
from rl_lightning.tasks.ladders import candidates, left_out, try_ladders


def main(seconds: float, names: list[str]) -> None:
    """Print a line a task: how long its levels took to try, and what is left out."""
    for name in names or task_names():
        task, began = Task(name, {}), time.monotonic()
        rungs = try_ladders({name: task}, {name: candidates(task)}, seconds, workers=2)[name]
        said = left_out(name, rungs) or f"datasets.{name}: all of {len(rungs)} levels"
        print(f"{time.monotonic() - began:5.1f} s  {said.removeprefix('datasets.')}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
