"""Questions and answers on disk, read one by one: a million of them take no memory, and are read from their file only once.

An index is a directory of the cache, named by a hash of the file's content and of the settings:

    rows.jsonl       the rows in use, those of the evaluation's own split last; of each a list: question, answer, working or null
    starts.npy       the byte at which each row begins
    hashes.npy, most_tokens.npy    see QuestionTable
    index.json       number of rows, of those for the evaluation, SHA-256 of rows.jsonl, and what was left out
"""

from __future__ import annotations

import atexit
import functools
import json
import logging
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rl_lightning.environments.question_hash import QuestionTable

log = logging.getLogger(__name__)

_KEPT_DAYS = 60
"""An index that no run has used for longer is removed."""


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds.

    Attributes:
        size: number of rows.
        evaluation: how many of them, the last ones, are the evaluation's own.
        sha256: hash of the rows, in hexadecimal.
        left_out: lines that say which rows are not used, and why.
    """

    size: int
    evaluation: int
    sha256: str
    left_out: tuple[str, ...]


class QuestionIndex:
    """The rows of an index.

    Args:
        directory: where it is.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        fields = json.loads((directory / "index.json").read_text(encoding="utf-8"))
        self.info = IndexInfo(**{**fields, "left_out": tuple(fields["left_out"])})
        with (directory / "rows.jsonl").open("rb") as rows:
            self._rows = mmap.mmap(rows.fileno(), 0, access=mmap.ACCESS_READ)
        self._starts = np.load(directory / "starts.npy", mmap_mode="r")

    def __getitem__(self, number: int) -> tuple[str, str, str | None]:
        """Question, answer and working of a row."""
        start = int(self._starts[number])
        question, answer, working = json.loads(self._rows[start : self._rows.find(b"\n", start)])
        return question, answer, working

    def table(self) -> QuestionTable:
        """What must be known of all rows at once."""
        return QuestionTable(*(np.load(self.directory / f"{name}.npy") for name in ("hashes", "most_tokens")))

    def __reduce__(self) -> tuple[type[QuestionIndex], tuple[Path]]:
        return QuestionIndex, (self.directory,)  # a worker process maps the same file


def open_index(key: str | None, write: Callable[[Path], IndexInfo]) -> QuestionIndex:
    """The index of a key, written first where the cache does not have it.

    Args:
        key: names it; None where only its rows can.
        write: writes its files but index.json into an empty directory.
    """
    cache = _cache()
    directory = cache / key if key else None
    if directory is None or not (directory / "index.json").is_file():
        _remove_old(cache)
        temporary = Path(tempfile.mkdtemp(dir=cache, prefix="new_"))
        try:
            info = write(temporary)
            (temporary / "index.json").write_text(json.dumps(asdict(info)), encoding="utf-8")
            directory = directory or cache / info.sha256
            _publish(temporary, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    os.utime(directory)
    return QuestionIndex(directory)


def _publish(temporary: Path, directory: Path) -> None:
    """Give an index its name, unless another process was faster: the two are the same."""
    try:
        temporary.rename(directory)
    except OSError:
        if not (directory / "index.json").is_file():
            raise


def _cache() -> Path:
    """The directory of all indexes; where it cannot be written, one that lasts as long as this process."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    cache = Path(os.environ.get("RL_LIGHTNING_CACHE") or os.path.join(caches, "rl_lightning"), "questions")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return cache
    except OSError as error:
        return _temporary_cache(f"{cache}: {error.strerror}")


@functools.cache
def _temporary_cache(why: str) -> Path:
    log.warning(f"{why}: files of questions are read again at every start (RL_LIGHTNING_CACHE)")
    cache = Path(tempfile.mkdtemp(prefix="rl_lightning_questions_"))
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    return cache


def _remove_old(cache: Path) -> None:
    for each in cache.iterdir():
        if time.time() - each.stat().st_mtime > _KEPT_DAYS * 86400:
            shutil.rmtree(each, ignore_errors=True)
