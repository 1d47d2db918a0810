"""Run the tasks' verifiers in sandboxed workers; a verifier may raise, hang or crash without harm to the trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from rl_lightning.environments.answer_formats import AnswerFormat, answer_format
from rl_lightning.sandbox import WORKER_FAILURES, Batches, SandboxPool
from rl_lightning.types import Problem, Score

Answered = tuple[Problem, str]
"""A problem and an answer to verify."""

Key = tuple[str, int | None, str, str]
"""Task, level, question, answer."""

Outcome = float | str
"""A verifier's score, or the name of its failure."""

_CHUNK = 32
"""Answers in one message to a worker: enough to make messages cheap, few enough to spread over the workers."""

_LOST = ("timeout", "killed_its_process")
"""What is recorded where a worker was lost to its time limit, or otherwise."""

_TAGS = answer_format("tags")


class Verifiers(Protocol):
    """What the scorer needs from an environment mixture."""

    def refuse(self, problem: Problem, answer: str) -> str | None:
        """Why no verifier needs to see this answer, or None; safe to call in the trainer's process."""
        ...

    def verify_all(self, answered: Sequence[Answered]) -> list[Outcome]:
        """The outcome of each pair; called in a sandboxed worker."""
        ...

    def explain(self, problem: Problem, answer: str) -> str:
        """One line on why an answer has its outcome, empty where there is nothing to say; called in a sandboxed worker."""
        ...


class Scorer:
    """Scores completions with their environments' own verifiers, in sandboxed processes.

    A completion scores 0 without a call to a verifier where it contains no answer, or where its environment refuses the answer
    because no right answer looks like it. The same answer to the same problem is verified once per call.

    Args:
        environments: the mixture that the problems come from; an answer is verified with its task's configuration at the
            problem's level. Must be picklable.
        workers: number of worker processes.
        seconds: time limit of one answer, in seconds.
        answers: how completions give their answers.
    """

    def __init__(
        self, environments: Verifiers, workers: int = 2, seconds: float = 2.0, answers: AnswerFormat = _TAGS
    ) -> None:
        self._environments, self._answers = environments, answers
        self._pool, self._seconds = SandboxPool(environments, workers), seconds
        self._submitted: set[Key] = set()
        self._waiting: list[Answered] = []
        self._batches = Batches[Answered](self._pool, "verify_all", seconds)

    def submit(self, problem: Problem, text: str) -> None:
        """Start to verify a completion that the next call will contain, and return immediately."""
        self._submit(problem, self._answers.extract(text))

    def _submit(self, problem: Problem, answer: str | None) -> None:
        if answer is None or self._refusal(problem, answer) is not None:
            return
        key = _key(problem, answer)
        if key not in self._submitted:
            self._submitted.add(key)
            self._waiting.append((problem, answer))
            if len(self._waiting) == _CHUNK:
                self._send()

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Score]:
        """The score of each completion.

        Args:
            problems: the problem of each completion.
            texts: the completions, without EOS token.
        """
        for problem, text in zip(problems, texts, strict=True):
            self.submit(problem, text)
        outcomes = self._outcomes()
        return [self._score(problem, text, outcomes) for problem, text in zip(problems, texts, strict=True)]

    def score_answers(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Score]:
        """The score of each answer without a completion around it, as if that were well formed."""
        for problem, answer in zip(problems, answers, strict=True):
            self._submit(problem, answer)
        outcomes = self._outcomes()
        return [
            self._verdict(problem, answer, True, 1.0, outcomes)
            for problem, answer in zip(problems, answers, strict=True)
        ]

    def explain(self, problem: Problem, score: Score) -> str:
        """One line on why an answer has its score; empty where nothing, or nothing else, is to be said.

        Args:
            problem: what was asked.
            score: this scorer's, of an answer to the problem.
        """
        failure = score.failure or ""
        if not score.answer or failure.startswith("refused_") or failure in _LOST:
            return ""
        try:
            said: str = self._pool.call("explain", problem, score.answer, seconds=self._seconds).result()
        except WORKER_FAILURES as error:
            return f"the explanation: {_lost(error)}"
        return said

    def _send(self) -> None:
        self._batches.send(self._waiting)
        self._waiting = []

    def _outcomes(self) -> dict[Key, Outcome]:
        """Outcomes of all submitted answers."""
        if self._waiting:
            self._send()
        self._submitted = set()
        return {
            _key(*answered): _lost(outcome) if isinstance(outcome, BaseException) else outcome
            for answered, outcome in self._batches.received()
        }

    def _refusal(self, problem: Problem, answer: str | None) -> str | None:
        if not answer:  # several verifiers give credit for an empty answer
            return "no_answer"
        reason = self._environments.refuse(problem, answer)
        return None if reason is None else f"refused_{reason}"

    def _score(self, problem: Problem, text: str, outcomes: dict[Key, Outcome]) -> Score:
        form, answer = self._answers, self._answers.extract(text) or None
        return self._verdict(problem, answer, form.is_well_formed(text), form.degree(text), outcomes)

    def _verdict(
        self, problem: Problem, answer: str | None, well_formed: bool, form: float, outcomes: dict[Key, Outcome]
    ) -> Score:
        outcome = self._refusal(problem, answer) or outcomes[_key(problem, answer or "")]
        if isinstance(outcome, float) and not math.isfinite(outcome):
            outcome = "not_finite"
        if isinstance(outcome, str):
            return Score(0.0, 0.0, well_formed, answer, outcome, form)
        partial = min(max(outcome, 0.0), 1.0)
        return Score(float(partial == 1.0), partial, well_formed, answer, format=form)

    def close(self) -> None:
        """Stop the worker processes."""
        self._pool.close()


def _key(problem: Problem, answer: str) -> Key:
    return problem.task, problem.level, problem.question, answer


def _lost(error: BaseException) -> str:
    return _LOST[0] if isinstance(error, TimeoutError) else _LOST[1]
