"""What must be known of all questions of a task at once: hashes by which the same ones are recognised, and their lengths."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PUNCTUATION = re.compile(r"[.,;:!?'\"]+(?=\s|$)")

UNKNOWN = np.iinfo(np.uint32).max
"""In place of the length of a question that could not be made."""

_NFC_BYTES, _OTHER_BYTES = 3, 12
"""How many times as many bytes, each of which may be a token, a tokenizer's normaliser may make of a text beyond ASCII."""


def question_hash(question: str) -> bytes:
    """An 8-byte hash of a question, the same for one that differs only in white space, case or punctuation after a word."""
    bare = " ".join(_PUNCTUATION.sub("", question.casefold()).split())
    return hashlib.blake2b(bare.encode(errors="surrogatepass"), digest_size=8).digest()


def as_numbers(hashes: Iterable[bytes]) -> NDArray[np.uint64]:
    """The hashes as numbers, sorted."""
    return np.sort(np.frombuffer(b"".join(hashes), np.uint64))


@dataclass(frozen=True)
class QuestionTable:
    """Hashes and lengths of all questions of a task.

    Attributes:
        hashes: (N,) `question_hash` of each.
        length: (N,) bytes of each in UTF-8; UNKNOWN where there is no question.
        is_ascii: (N,) whether it has no other characters.
        directory: where token counts are kept; None for nowhere.
    """

    hashes: NDArray[np.uint64]
    length: NDArray[np.uint32]
    is_ascii: NDArray[np.bool_]
    directory: Path | None = None

    @classmethod
    def of(cls, questions: Iterable[str | None]) -> QuestionTable:
        """The table of these questions; None for one that could not be made."""
        rows = [
            (b"\0" * 8, UNKNOWN, False) if question is None else (question_hash(question), *size(question))
            for question in questions
        ]
        hashes, length, is_ascii = zip(*rows, strict=True) if rows else ((), (), ())
        return cls(np.frombuffer(b"".join(hashes), np.uint64), np.array(length, np.uint32), np.array(is_ascii, bool))

    def most_tokens(self, tokenizer: Any) -> NDArray[np.int64]:
        """(N,) tokens that each question can have at most: one for each byte of what the tokenizer's normaliser makes of it."""
        factor = 1 if (kind := _normaliser(tokenizer)) is None else _NFC_BYTES if kind == "NFC" else _OTHER_BYTES
        return self.length.astype(np.int64) * np.where(self.is_ascii, 1, factor)

    def tokens(self, tokenizer: Any, numbers: NDArray[np.int64], question: Callable[[int], str]) -> NDArray[np.int64]:
        """(K,) tokens of some questions, without a prompt around them; counted once for each tokenizer if there is a directory.

        Args:
            tokenizer: a transformers tokenizer.
            numbers: (K,) which.
            question: a question by its number.
        """
        file = self._file_of(tokenizer)
        known = np.load(file) if file is not None and file.is_file() else np.full(len(self.length), UNKNOWN, np.uint32)
        new = numbers[known[numbers] == UNKNOWN]
        for first in range(0, len(new), 1000):
            some = new[first : first + 1000]
            encoded = tokenizer([question(int(number)) for number in some], add_special_tokens=False)["input_ids"]
            known[some] = [len(each) for each in encoded]
        if file is not None and len(new):
            with file.open("wb") as content:
                np.save(content, known)
        return known[numbers].astype(np.int64)

    def _file_of(self, tokenizer: Any) -> Path | None:
        if self.directory is None or not getattr(tokenizer, "is_fast", False):
            return None
        fingerprint = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
        return self.directory / f"tokens_{fingerprint[:16]}.npy"


def size(question: str) -> tuple[int, bool]:
    """Bytes of a question in UTF-8, and whether it is ASCII."""
    return (len(question), True) if question.isascii() else (len(question.encode(errors="surrogatepass")), False)


def _normaliser(tokenizer: Any) -> str | None:
    """The kind of a tokenizer's normaliser, None for none; empty where it is not known."""
    if not getattr(tokenizer, "is_fast", False):
        return ""
    found = tokenizer.backend_tokenizer.normalizer
    return None if found is None else type(found).__name__
