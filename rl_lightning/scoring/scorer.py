"""Ask the task's own scorer what an answer is worth, and believe nothing that it does."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rl_lightning.tasks.answers import extract_answer, is_well_formed
from rl_lightning.tasks.stream import TaskMixture
from rl_lightning.types import Problem, Score


class Scorer:
    """Scores completions by the configured tasks' own scorers.

    Args:
        mixture: the tasks; each answer is scored by its task's configuration.
    """

    def __init__(self, mixture: TaskMixture) -> None:
        self.mixture = mixture

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Score]:
        """One Score a completion.

        Args:
            problems: the problem of each completion.
            texts: the completions, without end token.
        """
        return [self._score(problem, text) for problem, text in zip(problems, texts, strict=True)]

    def _score(self, problem: Problem, text: str) -> Score:
        well_formed, answer = is_well_formed(text), extract_answer(text)
        if not answer:  # several scorers give credit for nothing, so they are not asked
            return Score(0.0, 0.0, well_formed, None, "no_answer")
        try:
            value = float(self.mixture.score(problem, answer))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # scorers raise SystemExit, RecursionError and others on a model's text
            return Score(0.0, 0.0, well_formed, answer, f"raised_{type(error).__name__}")
        if not math.isfinite(value):
            return Score(0.0, 0.0, well_formed, answer, "not_finite")
        partial = min(max(value, 0.0), 1.0)
        return Score(float(partial == 1.0), partial, well_formed, answer)
