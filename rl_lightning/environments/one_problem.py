"""One problem with a verifier of choice, to try what that says of answers."""

from __future__ import annotations

from rl_lightning.environments.verified import VerifiedTask
from rl_lightning.environments.verifier import Verifier
from rl_lightning.types import Problem


class OneProblem(VerifiedTask):
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
