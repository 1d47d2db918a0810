"""Measure how long a file of questions takes to open, the first time and again, and how much memory: docs/own_tasks.md.

python scripts/measure_questions.py --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path

import psutil

from rl_lightning.environments import EnvironmentMixture, TaskSpec
from rl_lightning.environments.held_out import epoch_orders
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import eval_problems, held_out_hashes
from rl_lightning.environments.verifiers import Number
from rl_lightning.policy.loading import load_tokenizer


def write(path: Path, rows: int) -> None:
    """Write questions in the form of GSM8K."""
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(rows):
            a, b = rng.randrange(10**6), rng.randrange(10**6)
            question = f"Farm number {number} has {a} sheep and buys {b} more at the market. How many sheep has it now?"
            file.write(json.dumps({"question": question, "answer": f"It has {a} + {b}.\n#### {a + b}"}) + "\n")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    template, process = PromptTemplate(load_tokenizer("tiny")), psutil.Process()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["RL_LIGHTNING_CACHE"] = directory
        path = Path(directory) / "farms.jsonl"
        write(path, parser.parse_args().rows)
        print(f"{path.stat().st_size / 1e6:.0f} MB")
        spec = TaskSpec(path=str(path), answer_pattern="#### (?P<answer>.+)", verifier=Number())
        for which in ("first", "again"):
            before, began = process.memory_full_info().uss, time.monotonic()
            mixture = EnvironmentMixture({"farms": spec})
            opened = time.monotonic()
            held_out = held_out_hashes(eval_problems(mixture, 0, 50))
            order = epoch_orders(mixture, 0, held_out, template, 512)["farms"]
            order.item(0)
            ended, used = time.monotonic(), (process.memory_full_info().uss - before) / 1e6
            print(
                f"{which}: opened in {opened - began:.2f} s, order in {ended - opened:.2f} s, {used:.0f} MB more of its own"
            )


if __name__ == "__main__":
    main()
