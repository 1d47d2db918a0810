"""Questions and answers on disk, read one by one: a million of them take no memory, and are read from their file only once.

An index is a directory of the cache, named by a hash of the file's content and of the settings:

    rows.jsonl       the rows in use, those of the evaluation's own split last; of each a list: question, answer, working or null
    starts.npy       the byte at which each row begins
    hashes.npy, length.npy, is_ascii.npy    see QuestionTable
    tokens_….npy     tokens of the questions that were counted by a tokenizer
    index.json       see IndexInfo; it is written last
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import mmap
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from rl_lightning.checkpointing.atomic_files import write_json
from rl_lightning.checkpointing.cache import cache_directory
from rl_lightning.environments.question_hash import QuestionTable

log = logging.getLogger(__name__)

_KEPT_DAYS = 60
"""An index that no run has used for longer is removed."""

_NEW = "new_questions_"
_KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds.

    Attributes:
        size: number of rows.
        evaluation: how many of them, the last ones, are the evaluation's own.
        sha256: hash of the rows, in hexadecimal.
        left_out: lines that say which rows are not used, and why.
        bytes: size of each file.
    """

    size: int
    evaluation: int
    sha256: str
    left_out: tuple[str, ...]
    bytes: dict[str, int] = field(default_factory=dict)


class QuestionIndex:
    """The rows of an index.

    Args:
        directory: where it is.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.info = directory, _info(directory)
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
        names = "hashes", "length", "is_ascii"
        hashes, length, is_ascii = (np.load(self.directory / f"{name}.npy") for name in names)
        return QuestionTable(hashes, length, is_ascii, self.directory)

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
    if directory is None or not _is_whole(directory):
        _remove_old(cache)
        temporary = Path(tempfile.mkdtemp(dir=cache, prefix=_NEW))
        try:
            directory = _publish(temporary, write(temporary), cache, key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):  # of another user
        os.utime(directory)
    return QuestionIndex(directory)


def _publish(temporary: Path, info: IndexInfo, cache: Path, key: str | None) -> Path:
    """Give an index its name, unless another process was faster: the two are the same."""
    sizes = {each.name: each.stat().st_size for each in temporary.iterdir()}
    for name in sizes:
        with (temporary / name).open("rb+") as file:
            os.fsync(file.fileno())
    write_json(temporary / "index.json", asdict(replace(info, bytes=sizes)))
    temporary.chmod(0o755)
    directory = cache / (key or info.sha256)
    if not _is_whole(directory):
        shutil.rmtree(directory, ignore_errors=True)  # of a computer that was switched off, say
    try:
        temporary.rename(directory)
    except OSError:
        if not _is_whole(directory):
            raise
    return directory


def _info(directory: Path) -> IndexInfo:
    fields = json.loads((directory / "index.json").read_text(encoding="utf-8"))
    return IndexInfo(**{**fields, "left_out": tuple(fields["left_out"])})


def _is_whole(directory: Path) -> bool:
    """Whether an index is there, and its files have the size that they were written with."""
    try:
        sizes = _info(directory).bytes
        return bool(sizes) and all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, TypeError, KeyError):  # not there, or index.json is not what was written
        return False


def _cache() -> Path:
    """The directory of all indexes; where it cannot be written, one that lasts as long as this process."""
    cache = cache_directory("questions")
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
    """Remove what no run has used for long, and what a killed one left; nothing that is not an index."""
    for each in cache.iterdir():
        days = 1 if each.name.startswith(_NEW) else _KEPT_DAYS
        with contextlib.suppress(OSError):  # another process may remove or rename it
            old = time.time() - each.stat().st_mtime > days * 86400
            if old and (each.name.startswith(_NEW) or _KEY.fullmatch(each.name)):
                shutil.rmtree(each, ignore_errors=True)
