"""One problem with a verifier of choice, to try what that says of answers."""

from __future__ import annotations

from rl_lightning.environments.environment import Environment
from rl_lightning.environments.verifier import Verifier
from rl_lightning.types import Problem


class OneProblem(Environment):
    """A problem whose answers a verifier compares with its expected one, whatever its own task does.

    Args:
        given: the problem, which has an expected answer.
        verifier: decides whether an answer is right.
    """

    def __init__(self, given: Problem, verifier: Verifier) -> None:
        self.given, self.verifier = given, verifier

    def problem(self, seed: int) -> Problem:
        """The problem, always."""
        return self.given

    def verify(self, problem: Problem, answer: str) -> float:
        """See the verifier."""
        return self.verifier(str(problem.expected), answer)

    def start(self) -> None:
        """See the verifier."""
        self.verifier.start()

    def explain(self, problem: Problem, answer: str) -> str:
        """See the verifier."""
        return self.verifier.explain(str(problem.expected), answer)
