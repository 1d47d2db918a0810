"""Throw every hostile answer at every task's verifier and see what breaks: nothing should.

    python scripts/attack_scorers.py

For each of the 105 tasks, one problem and all of `tests/hostile_answers.py`, plain and in bold, through the whole path of a
rollout: extraction, checks, the verifier in its sandboxed process. Counts wrong answers that got full marks and files that were
touched, and measures the longest wait. For ordinary right and wrong answers, compares the time with direct calls in this process.
Prints a table.
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

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.reasoning_gym.task import task_names
from rl_lightning.environments.stream import eval_problems, item_seed
from rl_lightning.scoring import Scorer
from rl_lightning.types import Problem
from tests.hostile_answers import hostile_answers


def attack(scorer: Scorer, problem: Problem, marker: Path) -> tuple[Counter[str], list[str], float, float]:
    """Outcomes by kind, the wrong answers that got full marks, the most partial credit, and the seconds of all answers."""
    plain = hostile_answers(problem, str(marker))
    answers = plain + [f"**{answer}**" for answer in plain]
    began = time.perf_counter()
    scores = scorer([problem] * len(answers), [f"<think></think><answer>{answer}</answer>" for answer in answers])
    seconds = time.perf_counter() - began
    right = str(problem.expected).strip().casefold()
    said = [
        (score.answer or "").strip("*").casefold() for score in scores
    ]  # some hostile answers hold tags of their own
    full = [answer for answer, text, score in zip(answers, said, scores, strict=True) if score.exact and text != right]
    partial = max((s.partial for s in scores if not s.exact), default=0.0)
    outcomes = Counter((s.failure or "scored").split("_")[0] for s in scores)
    return outcomes, full, partial, seconds


def time_ordinary(mixture: EnvironmentMixture, scorer: Scorer, count: int = 512) -> str:
    """Time of right and wrong answers to the quickstart's kind of problem: sandboxed and direct calls, alternately."""
    problems = [mixture.problem("chain_sum", item_seed("train", 0, k, 0), k) for k in range(count)]
    answers = [str(p.expected) if k % 2 else str(k) for k, p in enumerate(problems)]
    texts = [f"<think></think><answer>{answer}</answer>" for answer in answers]
    sandboxed, plain = [], []
    for _ in range(8):
        began = time.perf_counter()
        scorer(problems, texts)
        sandboxed.append(time.perf_counter() - began)
        began = time.perf_counter()
        mixture.verify_all(list(zip(problems, answers, strict=True)))
        plain.append(time.perf_counter() - began)
    return (
        f"{count} ordinary answers: {1e3 * median(sandboxed[1:]):.1f} ms sandboxed, "
        f"{1e3 * median(plain[1:]):.1f} ms in plain calls"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=task_names())
    parser.add_argument("--seconds", type=float, default=2.0, help="time limit per answer")
    args = parser.parse_args()
    mixture = EnvironmentMixture({name: TaskSpec() for name in {*args.tasks, "chain_sum"}})
    scorer = Scorer(mixture, workers=2, seconds=args.seconds)
    total: Counter[str] = Counter()
    paid = touched = 0
    with tempfile.TemporaryDirectory() as directory:
        marker = Path(directory) / "marker"
        for name in args.tasks:
            (problem,) = eval_problems(EnvironmentMixture({name: TaskSpec()}), 1, 1)
            outcomes, full, partial, seconds = attack(scorer, problem, marker)
            total += outcomes
            paid += len(full)
            touched += len(list(Path(directory).iterdir()))
            notes = f" FULL MARKS: {[answer[:60] for answer in full]}" if full else ""
            print(f"{name:28} {seconds:6.1f} s  most partial credit {partial:.3f}  {dict(outcomes)}{notes}", flush=True)
    print(f"{len(args.tasks)} tasks, {sum(total.values())} answers: {dict(total)}")
    print(f"full marks {paid}, files touched {touched}, trainer crashes 0 (or this line were not here)")
    print(time_ordinary(mixture, scorer))
    scorer.close()
    return int(bool(paid or touched))


if __name__ == "__main__":
    sys.exit(main())
