"""Have the verifier accept the data's own answers before training, in sandboxed processes."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future

from rl_lightning.environments.verifier import Verifier
from rl_lightning.sandbox import WORKER_FAILURES, SandboxPool
from rl_lightning.types import first_line

_CHECKED_AT_ONCE = 500
_CALLS_AHEAD = 8
_CHUNK_SECONDS, _ANSWER_SECONDS = 60.0, 5.0
"""Time limits of the verifier, for a chunk of the data's answers, and for each by itself where the chunk fails."""


class ExpectedAnswerChecks:
    """Has the verifier accept the data's answers, in sandboxed processes.

    Args:
        verifier: of the task.

    Attributes:
        wrong: number of a row to why its answer is not accepted, as far as known.
        slow: number of a row whose answer takes too long, which depends on the machine; None if there is none.
    """

    def __init__(self, verifier: Verifier) -> None:
        # Forked from what all workers are forked from, because the first pool decides.
        self._pool = SandboxPool(_ExpectedAnswers(verifier), workers=2, module="rl_lightning.environments.mixture")
        self.wrong = dict[int, str]()
        self.slow: int | None = None
        self._waiting: list[tuple[int, str]] = []
        self._sent: deque[tuple[list[tuple[int, str]], Future[list[str]]]] = deque()

    def add(self, number: int, answer: str) -> None:
        """Check the answer of a row soon."""
        self._waiting.append((number, answer))
        if len(self._waiting) == _CHECKED_AT_ONCE:
            self._send()

    def finish(self) -> dict[int, str]:
        """All that are not accepted, when everything has been checked."""
        self._send()
        while self._sent:
            self._receive()
        return self.wrong

    def close(self) -> None:
        """Stop the processes."""
        self._pool.close()

    def _send(self) -> None:
        if self._waiting:
            self._sent.append((self._waiting, self._call(self._waiting, _CHUNK_SECONDS)))
            self._waiting = []
        if len(self._sent) > _CALLS_AHEAD:
            self._receive()

    def _call(self, chunk: list[tuple[int, str]], seconds: float) -> Future[list[str]]:
        return self._pool.call("refused", [answer for _, answer in chunk], seconds=seconds)

    def _receive(self) -> None:
        chunk, future = self._sent.popleft()
        try:
            said = future.result()
        except WORKER_FAILURES:  # which answer it was shows one by one
            said = [self._alone(each) for each in chunk]
        self.wrong |= {number: why for (number, _), why in zip(chunk, said, strict=True) if why}

    def _alone(self, one: tuple[int, str]) -> str:
        try:
            return self._call([one], _ANSWER_SECONDS).result()[0]
        except TimeoutError:
            self.slow = one[0]
            return f"takes longer than {_ANSWER_SECONDS:g} s for the data's own answer {one[1][:60]!r}"
        except WORKER_FAILURES:
            return f"ends its process at the data's own answer {one[1][:60]!r}"


class _ExpectedAnswers:
    """What a worker runs to check the data's answers.

    Args:
        verifier: of the task.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def start(self) -> None:
        """See the verifier."""
        self._verifier.start()

    def refused(self, answers: list[str]) -> list[str]:
        """Why each is not accepted; empty where it is."""
        return [self._refusal(answer) for answer in answers]

    def _refusal(self, answer: str) -> str:
        try:
            self._verifier.check_expected(answer)
        except BaseException as error:  # verifiers raise SystemExit, RecursionError and others
            return f"{'' if isinstance(error, ValueError) else type(error).__name__ + ': '}{first_line(error)}"
        return ""


def refused_answers(verifier: Verifier, answers: list[str]) -> list[str]:
    """Why a verifier does not accept each of the data's answers; empty where it does."""
    checks = ExpectedAnswerChecks(verifier)
    try:
        for number, answer in enumerate(answers):
            checks.add(number, answer)
        wrong = checks.finish()
    finally:
        checks.close()
    return [wrong.get(number, "") for number in range(len(answers))]
