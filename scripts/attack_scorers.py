"""Throw every hostile answer at every task's scorer and see what breaks: nothing may.

    python scripts/attack_scorers.py

For each of the 105 tasks, one problem and all of `tests/hostile_answers.py`, through the whole path of a rollout: extraction,
checks, the scorer in its process. Counts answers that were paid in full though they are not the right one, files that were touched,
the longest wait; and compares, for ordinary right and wrong answers, the time with plain calls in this process. Prints a table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from rl_lightning.scoring import Scorer
from rl_lightning.tasks.generator import task_names
from rl_lightning.tasks.stream import TaskMixture, TaskSpec, item_seed
from rl_lightning.types import Problem
from tests.hostile_answers import hostile_answers


def attack(scorer: Scorer, problem: Problem, marker: Path) -> tuple[Counter[str], list[str], float, float]:
    """What became of the answers, the ones paid in full, the most partial credit, and the seconds of all."""
    answers = hostile_answers(problem, str(marker))
    began = time.perf_counter()
    scores = scorer([problem] * len(answers), [f"<think></think><answer>{answer}</answer>" for answer in answers])
    seconds = time.perf_counter() - began
    right = str(problem.entry["answer"]).strip().casefold()
    paid = [answer for answer, score in zip(answers, scores, strict=True) if score.exact and answer.casefold() != right]
    partial = max((s.partial for s in scores if not s.exact), default=0.0)
    fates = Counter((s.failure or "scored").split("_")[0] for s in scores)
    return fates, paid, partial, seconds


def ordinary(mixture: TaskMixture, scorer: Scorer, count: int = 512) -> str:
    """Right and wrong answers to the quickstart's kind of problem: our way against plain calls, in turn."""
    problems = [mixture.problem("chain_sum", item_seed("train", 0, k, 0), k) for k in range(count)]
    answers = [str(p.entry["answer"]) if k % 2 else str(k) for k, p in enumerate(problems)]
    texts = [f"<think></think><answer>{answer}</answer>" for answer in answers]
    ours, plain = [], []
    for _ in range(8):
        began = time.perf_counter()
        scorer(problems, texts)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        mixture.scores(list(zip(problems, answers, strict=True)))
        plain.append(time.perf_counter() - began)
    return f"{count} ordinary answers: {1e3 * median(ours[1:]):.1f} ms isolated, {1e3 * median(plain[1:]):.1f} ms in plain calls"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=task_names())
    parser.add_argument("--seconds", type=float, default=2.0, help="time limit of an answer")
    args = parser.parse_args()
    mixture = TaskMixture({name: TaskSpec() for name in {*args.tasks, "chain_sum"}})
    scorer = Scorer(mixture, workers=2, seconds=args.seconds)
    total: Counter[str] = Counter()
    full = touched = 0
    with tempfile.TemporaryDirectory() as directory:
        marker = Path(directory) / "marker"
        for name in args.tasks:
            problem = mixture.problem(name, item_seed("eval", 1, 0, 0), 0)
            fates, paid, partial, seconds = attack(scorer, problem, marker)
            total += fates
            full += len(paid)
            touched += len(list(Path(directory).iterdir()))
            notes = f" PAID IN FULL: {[p[:60] for p in paid]}" if paid else ""
            print(f"{name:28} {seconds:6.1f} s  most partial credit {partial:.3f}  {dict(fates)}{notes}", flush=True)
    print(f"{len(args.tasks)} tasks, {sum(total.values())} answers: {dict(total)}")
    print(f"paid in full {full}, files touched {touched}, trainer crashes 0 (or this line were not here)")
    print(ordinary(mixture, scorer))
    scorer.close()
    return int(bool(full or touched))


if __name__ == "__main__":
    sys.exit(main())
