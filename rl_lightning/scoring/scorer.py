"""Ask the task's own scorer what an answer is worth, in a process that may be lost, and believe nothing that it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from rl_lightning.isolation import LOST, GuardedPool
from rl_lightning.tasks.answer_checks import refuse_answer
from rl_lightning.tasks.answers import extract_answer, is_well_formed
from rl_lightning.types import Problem, Score

Asked = tuple[Problem, str]
Key = tuple[str, int | None, str, str]
"""Task, level, question, answer."""

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
        mixture: the tasks; each answer is scored by its task's configuration at the problem's level.
        workers: processes.
        seconds: time limit of an answer.
    """

    def __init__(self, mixture: Scores, workers: int = 2, seconds: float = 2.0) -> None:
        self._pool, self._seconds = GuardedPool(mixture, workers), seconds
        self._known: set[Key] = set()
        self._waiting: list[tuple[Key, Asked]] = []
        self._sent: list[tuple[list[tuple[Key, Asked]], Future[list[Outcome]]]] = []

    def begin(self, problem: Problem, text: str) -> None:
        """Have a completion scored that the next call will ask for, while the caller does something else."""
        answer = extract_answer(text)
        if answer is None or _refusal(problem, answer) is not None:
            return
        key = problem.task, problem.level, problem.question, answer
        if key not in self._known:
            self._known.add(key)
            self._waiting.append((key, (problem, answer)))
            if len(self._waiting) == _CHUNK:
                self._send()

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Score]:
        """One Score a completion.

        Args:
            problems: the problem of each completion.
            texts: the completions, without end token.
        """
        for problem, text in zip(problems, texts, strict=True):
            self.begin(problem, text)
        outcomes = self._outcomes()
        return [_score(problem, text, outcomes) for problem, text in zip(problems, texts, strict=True)]

    def _send(self) -> None:
        chunk, self._waiting = self._waiting, []
        asked = [pair for _, pair in chunk]
        self._sent.append((chunk, self._pool.call("scores", asked, seconds=self._seconds)))

    def _outcomes(self) -> dict[Key, Outcome]:
        """Of all that was begun; of a chunk that lost its worker, each answer again and alone."""
        if self._waiting:
            self._send()
        sent, self._sent, self._known = self._sent, [], set()
        outcomes: dict[Key, Outcome] = {}
        alone: dict[Key, Future[list[Outcome]]] = {}
        for chunk, future in sent:
            try:
                outcomes |= dict(zip([key for key, _ in chunk], future.result(), strict=True))
            except LOST:
                alone |= {key: self._pool.call("scores", [asked], seconds=self._seconds) for key, asked in chunk}
        for key, future in alone.items():
            try:
                (outcomes[key],) = future.result()
            except TimeoutError:
                outcomes[key] = "timeout"
            except LOST:
                outcomes[key] = "killed_its_process"
        return outcomes

    def close(self) -> None:
        """Stop the processes."""
        self._pool.close()


def _refusal(problem: Problem, answer: str | None) -> str | None:
    if not answer:  # several scorers give credit for nothing, so they are not asked
        return "no_answer"
    reason = refuse_answer(problem.task, answer, problem.entry)
    return None if reason is None else f"refused_{reason}"


def _score(problem: Problem, text: str, outcomes: dict[Key, Outcome]) -> Score:
    well_formed, answer = is_well_formed(text), extract_answer(text) or None
    outcome = _refusal(problem, answer) or outcomes[problem.task, problem.level, problem.question, answer or ""]
    if isinstance(outcome, str):
        return Score(0.0, 0.0, well_formed, answer, outcome)
    if not math.isfinite(outcome):
        return Score(0.0, 0.0, well_formed, answer, "not_finite")
    partial = min(max(outcome, 0.0), 1.0)
    return Score(float(partial == 1.0), partial, well_formed, answer)
