"""Accuracy of the best constant answer to each task: what a policy would score that never looks at the question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from rl_lightning.types import Problem, Score

DOMINANT = 0.1
"""A constant answer with a lower accuracy than this is not reported."""


def constant_answers(
    problems: Sequence[Problem], scorer: Callable[[Sequence[Problem], Sequence[str]], list[Score]]
) -> dict[str, dict[str, Any]]:
    """Score each task's most common expected answer on all problems of the task, by the task's own verifier.

    Args:
        problems: the problems of the suite.
        scorer: from problems and answers to their scores, such as `Scorer.score_answers`.

    Returns:
        task to `constant_answer` and `constant`, its accuracy, for the tasks where that is at least `DOMINANT`.
    """
    found = {}
    for task in sorted({problem.task for problem in problems}):
        of_task = [problem for problem in problems if problem.task == task]
        counts = Counter(p.expected for p in of_task if p.expected is not None)
        answer, count = max(sorted(counts.items()), key=lambda pair: pair[1], default=("", 0))
        if count < 2:
            continue
        accuracy = fmean(score.exact for score in scorer(of_task, [answer] * len(of_task)))
        if accuracy >= DOMINANT:
            found[task] = {"constant": accuracy, "constant_answer": answer}
    return found
