"""Throw hostile, almost right and right answers at every task's verifier and see what breaks: nothing should.

    python scripts/attack_scorers.py

For problems of each of the 105 tasks, by several seeds, through the whole path of a rollout (extraction, checks, the verifier in
its sandboxed process): all of `tests/hostile_answers.py`, plain and in bold; all of `tests/subtle_answers.py`, made from a
right answer; and that answer in all forms of `tests/honest_forms.py`. Counts wrong answers that got full marks, right ones that did
not, and files that were touched, and measures the longest wait. What was paid in full is judged by other means than the verifier's
(`judging.py`). For ordinary right and wrong answers, compares the time with direct calls in this process. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

os.environ.setdefault("PYTHONHASHSEED", "0")
sys.path.insert(0, str(Path(__file__).parents[1]))

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.reasoning_gym.task import task_names
from rl_lightning.environments.stream import eval_problems, item_seed
from rl_lightning.scoring import Scorer
from rl_lightning.types import Problem, Score
from tests.environments.reasoning_gym.judging import is_right, may_be_right
from tests.environments.reasoning_gym.right_answers import right_answer
from tests.honest_forms import FORMS
from tests.hostile_answers import hostile_answers
from tests.subtle_answers import subtle_answers

SPECS = {name: TaskSpec(config={"max_moves": 7} if name == "rush_hour" else {}) for name in task_names()}
"""Of rush_hour problems that a search in Python solves soon."""


@dataclass
class Found:
    """What became of the answers to some problems.

    Attributes:
        outcomes: number of hostile and subtle answers by outcome.
        honest: number of right answers, in all forms.
        wrong: wrong answers with full marks.
        unread: answers with full marks that no other solver reads, in a form that may be right; to be looked at.
        lost: right answers, in some form, without full marks.
        own: number of problems of which the data's own answer gets no full marks; nothing is made from these.
        partial: the most partial credit for a hostile answer.
        longest: seconds of all answers to one problem together, at most.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    honest: int = 0
    wrong: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    own: int = 0
    partial: float = 0.0
    longest: float = 0.0

    def add(self, other: Found) -> None:
        """Add what was found for other problems."""
        self.outcomes += other.outcomes
        self.wrong, self.unread = self.wrong + other.wrong, self.unread + other.unread
        self.lost, self.honest, self.own = self.lost + other.lost, self.honest + other.honest, self.own + other.own
        self.partial, self.longest = max(self.partial, other.partial), max(self.longest, other.longest)

    def __str__(self) -> str:
        """In one line, and one more for each answer that should have been scored otherwise."""
        lines = [
            f"{self.longest:6.1f} s  most partial credit {self.partial:.3f}  {dict(self.outcomes)}  right {self.honest}"
            + (f"  own answer without full marks {self.own}" if self.own else "")
        ]
        lines += [f"WRONG, FULL MARKS: {answer[:200]!a}" for answer in dict.fromkeys(self.wrong)]
        lines += [f"to be looked at, full marks: {answer[:200]!a}" for answer in dict.fromkeys(self.unread)]
        lines += [f"RIGHT, NOT PAID: {answer[:200]!a}" for answer in dict.fromkeys(self.lost)]
        return "\n    ".join(lines)


def scored(scorer: Scorer, problem: Problem, answers: Sequence[str]) -> list[Score]:
    """The scores of answers, each in a well-formed completion."""
    return scorer([problem] * len(answers), [f"<think></think><answer>{answer}</answer>" for answer in answers])


def attack(scorer: Scorer, problem: Problem, marker: Path) -> Found:
    """Give a problem every answer."""
    right = str(right_answer(problem.payload, problem.task)).strip()
    plain = hostile_answers(problem, str(marker))
    hostile, found = plain + [f"**{answer}**" for answer in plain], Found()
    (of_right,) = scored(scorer, problem, [right])
    subtle = subtle_answers(right) if of_right.exact else []
    found.own = int(not of_right.exact)
    began = time.perf_counter()
    scores = scored(scorer, problem, hostile + subtle)
    found.longest = time.perf_counter() - began
    found.outcomes = Counter((score.failure or "scored").split("_")[0] for score in scores)
    found.partial = max((s.partial for s in scores[: len(hostile)] if not s.exact), default=0.0)
    for text in ((score.answer or "").strip("*") for score in scores if score.exact):
        if not is_right(problem.task, problem, text, right):
            if may_be_right(problem.task, text):
                found.unread.append(f"{text} ({right})")
            else:
                found.wrong.append(f"{text} ({right})")
    forms = [form.format(right).strip() for form in FORMS] if of_right.exact else []
    found.honest = len(forms)
    found.lost = [form for form, score in zip(forms, scored(scorer, problem, forms), strict=True) if not score.exact]
    return found


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
    parser.add_argument("--seeds", type=int, default=2, help="evaluation seeds by which problems are chosen")
    parser.add_argument("--problems", type=int, default=2, help="of each task and seed")
    parser.add_argument("--seconds", type=float, default=2.0, help="time limit per answer")
    args = parser.parse_args()
    mixture = EnvironmentMixture({name: SPECS[name] for name in {*args.tasks, "chain_sum"}})
    scorer, total, asked, touched = Scorer(mixture, workers=2, seconds=args.seconds), Found(), 0, 0
    with tempfile.TemporaryDirectory() as directory:
        marker = Path(directory) / "marker"
        for name in args.tasks:
            of_task = Found()
            for seed in range(1, 1 + args.seeds):
                for problem in eval_problems(EnvironmentMixture({name: SPECS[name]}), seed, args.problems):
                    of_task.add(attack(scorer, problem, marker))
                    asked += 1
            total.add(of_task)
            touched += len(list(Path(directory).iterdir()))
            print(f"{name:28}{of_task}", flush=True)
    print(f"{len(args.tasks)} tasks, {asked} problems, {sum(total.outcomes.values())} hostile and subtle answers:")
    print(f"{dict(total.outcomes)}; {total.honest} right answers; own answer without full marks: {total.own} problems")
    print(
        f"wrong with full marks {len(total.wrong)}, to be looked at {len(total.unread)}, "
        f"right without full marks {len(total.lost)}, files touched {touched}, trainer crashes 0 (or this line were not here)"
    )
    print(time_ordinary(mixture, scorer))
    scorer.close()
    return int(bool(total.wrong or total.lost or touched))


if __name__ == "__main__":
    sys.exit(main())
