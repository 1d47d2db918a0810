"""A task whose answers a verifier compares with the expected ones."""

from __future__ import annotations

from rl_lightning.environments.environment import Environment
from rl_lightning.environments.verifier import Verifier
from rl_lightning.types import Problem


class VerifiedTask(Environment):
    """A task with a verifier; its problems have expected answers.

    Attributes:
        verifier: decides whether an answer is right.
    """

    verifier: Verifier

    def verify(self, problem: Problem, answer: str) -> float:
        """See the verifier."""
        return self.verifier(str(problem.expected), answer)

    def start(self) -> None:
        """See the verifier."""
        self.verifier.start()

    def explain(self, problem: Problem, answer: str) -> str:
        """See the verifier."""
        return self.verifier.explain(str(problem.expected), answer)
