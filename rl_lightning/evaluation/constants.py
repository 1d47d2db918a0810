"""What an answer that never looks at the question would earn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from rl_lightning.types import Problem, Score

DOMINANT = 0.1
"""A constant answer that is right less often than this is no rival."""


def constant_answers(
    problems: Sequence[Problem], scorer: Callable[[Sequence[Problem], Sequence[str]], list[Score]]
) -> dict[str, dict[str, Any]]:
    """Of each task, the commonest expected answer and its accuracy by the task's own scorer, where it is dominant.

    Args:
        problems: the suite's.
        scorer: problems and completions to scores.

    Returns:
        task to `constant_answer` and `constant`, its accuracy.
    """
    found = {}
    for task in sorted({problem.task for problem in problems}):
        mine = [problem for problem in problems if problem.task == task]
        counts = Counter(str(p.entry["answer"]) for p in mine if p.entry.get("answer") is not None)
        answer, count = max(sorted(counts.items()), key=lambda pair: pair[1], default=("", 0))
        if count < 2:
            continue
        accuracy = fmean(score.exact for score in scorer(mine, [f"<answer>{answer}</answer>"] * len(mine)))
        if accuracy >= DOMINANT:
            found[task] = {"constant": accuracy, "constant_answer": answer}
    return found
