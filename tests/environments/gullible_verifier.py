"""A verifier of a user's own that runs what it is given, in a module that workers import quickly."""

from __future__ import annotations

from rl_lightning.environments.verifier import Verifier
from tests.hostile_to_verifiers import HANG


class OwnClass(Verifier):
    """A user's own, which runs what it is given, hangs, ends the process or says nonsense."""

    def __call__(self, expected, answer):
        if answer in HANG:
            while True:
                pass
        if answer.startswith(("[", "(", "open", "__import__", "x + ")):
            return float(len(repr(eval(answer))) > 10**9)
        return float(answer == expected)
