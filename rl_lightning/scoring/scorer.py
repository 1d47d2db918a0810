"""Ask the task's own scorer what an answer is worth, in a process that may be lost, and believe nothing that it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from rl_lightning.isolation import LOST, GuardedPool
from rl_lightning.tasks.answer_checks import refuse_answer
from rl_lightning.tasks.answers import extract_answer, is_well_formed
from rl_lightning.types import Problem, Score

Asked = tuple[Problem, str]
Outcome = float | str
"""A scorer's value, or the name of what went wrong."""

_CHUNK = 32
"""Answers a worker takes at once: enough to make the messages cheap, few enough to spread over the workers."""


class Scores(Protocol):
    """A task mixture, as far as it matters here."""

    def scores(self, asked: Sequence[Asked]) -> list[Outcome]:
        """One outcome a (problem, answer) pair."""


class Scorer:
    """Scores completions by the configured tasks' own scorers, in guarded processes.

    An answer gets nothing without being shown to a scorer if there is none, or if the checks of `answer_checks` say that no
    right answer looks like it. The same answer to the same problem is scored once a call.

    Args:
        mixture: the tasks; each answer is scored by its task's configuration.
        workers: processes.
        seconds: time limit of an answer.
    """

    def __init__(self, mixture: Scores, workers: int = 2, seconds: float = 2.0) -> None:
        self._pool, self._seconds = GuardedPool(mixture, workers), seconds

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Score]:
        """One Score a completion.

        Args:
            problems: the problem of each completion.
            texts: the completions, without end token.
        """
        answers = [extract_answer(text) for text in texts]
        refusals = [_refusal(problem, answer) for problem, answer in zip(problems, answers, strict=True)]
        asked: dict[tuple[str, str, str], Asked] = {}
        for problem, answer, refusal in zip(problems, answers, refusals, strict=True):
            if answer is not None and refusal is None:
                asked.setdefault((problem.task, problem.question, answer), (problem, answer))
        outcomes = dict(zip(asked, self._outcomes(list(asked.values())), strict=True))
        return [
            _score(is_well_formed(text), answer, refusal or outcomes[problem.task, problem.question, answer or ""])
            for problem, text, answer, refusal in zip(problems, texts, answers, refusals, strict=True)
        ]

    def _outcomes(self, asked: list[Asked]) -> list[Outcome]:
        """All in chunks; of a chunk that lost its worker, each answer again and alone."""
        chunks = [asked[i : i + _CHUNK] for i in range(0, len(asked), _CHUNK)]
        futures = [self._pool.call("scores", chunk, seconds=self._seconds) for chunk in chunks]
        outcomes: list[Outcome | None] = []
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                outcomes += future.result()
            except LOST:
                outcomes += [None] * len(chunk)
        alone = {
            i: self._pool.call("scores", [asked[i]], seconds=self._seconds)
            for i, outcome in enumerate(outcomes)
            if outcome is None
        }
        for i, future in alone.items():
            try:
                (outcomes[i],) = future.result()
            except TimeoutError:
                outcomes[i] = "timeout"
            except LOST:
                outcomes[i] = "killed_its_process"
        return [outcome for outcome in outcomes if outcome is not None]

    def close(self) -> None:
        """Stop the processes."""
        self._pool.close()


def _refusal(problem: Problem, answer: str | None) -> str | None:
    if not answer:  # several scorers give credit for nothing, so they are not asked
        return "no_answer"
    reason = refuse_answer(problem.task, answer, problem.entry)
    return None if reason is None else f"refused_{reason}"


def _score(well_formed: bool, answer: str | None, outcome: Outcome) -> Score:
    if isinstance(outcome, str):
        return Score(0.0, 0.0, well_formed, answer if outcome != "no_answer" else None, outcome)
    if not math.isfinite(outcome):
        return Score(0.0, 0.0, well_formed, answer, "not_finite")
    partial = min(max(outcome, 0.0), 1.0)
    return Score(float(partial == 1.0), partial, well_formed, answer)
