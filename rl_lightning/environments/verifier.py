"""The base class of what decides whether an answer to a question of one's own is right."""

from __future__ import annotations

from abc import ABC, abstractmethod

_SHOWN_CHARACTERS = 60


class Verifier(ABC):
    """Compares an answer with the expected one. Subclass it for rules of your own; its constructor's arguments are its settings.

    Runs in a sandboxed worker, as `Environment.verify` does, so it must be picklable. It may raise any exception: then the answer
    scores 0.
    """

    @abstractmethod
    def __call__(self, expected: str, answer: str) -> float:
        """The score of an answer, in [0, 1]; 1 is fully right.

        Args:
            expected: the data's own answer.
            answer: the completion's answer, as written or without its dress (docs/scoring.md).
        """
        ...

    def explain(self, expected: str, answer: str) -> str:
        """One line, for people, on how both were read and why the score is what it is, such as "read as 1200; expected 1200"; empty
        where there is nothing to say. Runs in the worker too, and may raise as `__call__` may; no score depends on it.

        Args:
            expected: the data's own answer.
            answer: what `__call__` was given.
        """
        return ""

    def check_expected(self, expected: str) -> None:
        """Raise an error where no answer can be right; called for each row's answer when the data is read. By default, that must be
        right as an answer to its own question.

        Args:
            expected: the data's own answer.

        Raises:
            ValueError: why no answer can be.
        """
        if not self(expected, expected) >= 1:  # nor NaN
            raise ValueError(f"does not accept {expected[:60]!r} as its own answer")

    def start(self) -> None:  # noqa: B027
        """Called once in each worker process, before that gives up the right to start other processes; does nothing by default."""


def shown(text: object) -> str:
    """The text on one line, as an explanation quotes it; a long one is cut."""
    words = " ".join(str(text).split())
    return words if len(words) <= _SHOWN_CHARACTERS else f"{words[:_SHOWN_CHARACTERS]}… ({len(words)} characters)"
