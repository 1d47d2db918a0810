"""Hashes by which questions are recognised that are the same, whatever their white space, case and punctuation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PUNCTUATION = re.compile(r"[.,;:!?'\"]+(?=\s|$)")

_MOST_BYTES_OF_ONE = 12
"""A normaliser of a tokenizer may make 33 bytes of 3, and each may be a token."""


def question_hash(question: str) -> bytes:
    """An 8-byte hash of a question, the same for one that differs only in white space, case or punctuation after a word."""
    bare = " ".join(_PUNCTUATION.sub("", question.casefold()).split())
    return hashlib.blake2b(bare.encode(errors="surrogatepass"), digest_size=8).digest()


def as_numbers(hashes: Iterable[bytes]) -> NDArray[np.uint64]:
    """The hashes as numbers, sorted."""
    return np.sort(np.frombuffer(b"".join(hashes), np.uint64))


@dataclass(frozen=True)
class QuestionTable:
    """What must be known of all questions of a task at once, without having them in memory.

    Attributes:
        hashes: (N,) `question_hash` of each.
        most_tokens: (N,) tokens that each can have at most, whatever the tokenizer.
    """

    hashes: NDArray[np.uint64]
    most_tokens: NDArray[np.uint32]

    @classmethod
    def of(cls, questions: Iterable[str]) -> QuestionTable:
        """The table of these questions."""
        hashes, most = bytearray(), []
        for question in questions:
            hashes += question_hash(question)
            most.append(most_tokens(question))
        return cls(np.frombuffer(hashes, np.uint64), np.array(most, np.uint32))


def most_tokens(question: str) -> int:
    """How many tokens a question can have at most: one for each byte, or more where a tokenizer may rewrite it first."""
    return len(question) if question.isascii() else _MOST_BYTES_OF_ONE * len(question.encode(errors="surrogatepass"))
