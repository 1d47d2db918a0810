"""Have the verifier accept the data's own answers before training, in sandboxed processes."""

from __future__ import annotations

from rl_lightning.environments.verifier import Verifier
from rl_lightning.sandbox import Batches, SandboxPool
from rl_lightning.types import first_line

_CHECKED_AT_ONCE = 500
_CALLS_AHEAD = 8
_ANSWER_SECONDS = 5.0
"""Time limit of the verifier for each of the data's answers."""


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
        self._batches = Batches[tuple[int, str]](self._pool, "refused", _ANSWER_SECONDS)

    def add(self, number: int, answer: str) -> None:
        """Check the answer of a row soon."""
        self._waiting.append((number, answer))
        if len(self._waiting) == _CHECKED_AT_ONCE:
            self._send()

    def finish(self) -> dict[int, str]:
        """All that are not accepted, when everything has been checked."""
        self._send()
        self._receive(ahead=0)
        return self.wrong

    def close(self) -> None:
        """Stop the processes."""
        self._pool.close()

    def _send(self) -> None:
        if self._waiting:
            self._batches.send(self._waiting)
            self._waiting = []
        self._receive(ahead=_CALLS_AHEAD)

    def _receive(self, ahead: int) -> None:
        for (number, answer), said in self._batches.received(ahead):
            if isinstance(said, TimeoutError):
                self.slow = number
                self.wrong[number] = (
                    f"takes longer than {_ANSWER_SECONDS:g} s for the data's own answer {answer[:60]!r}"
                )
            elif isinstance(said, BaseException):
                self.wrong[number] = f"ends its process at the data's own answer {answer[:60]!r}"
            elif said:
                self.wrong[number] = said


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

    def refused(self, rows: list[tuple[int, str]]) -> list[str]:
        """Why each is not accepted; empty where it is."""
        return [self._refusal(answer) for _, answer in rows]

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
