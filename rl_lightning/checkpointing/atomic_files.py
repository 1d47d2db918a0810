"""Write files atomically: each appears complete or not at all, even if the process is killed while it writes.

On Windows a file that another program holds open, a spreadsheet for instance, can be neither replaced nor written. What belongs
there then waits beside it, in a file `.NAME.waiting`, and takes its place when that is possible: with any later file that is
written, at the end of the process, or when the run is resumed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

_PAUSES = (0.05, 0.1, 0.2, 0.4)
"""Seconds between attempts at a file that a virus scanner or an indexer may hold for a moment."""

_waiting = set[Path]()
"""The files of this process that another program holds open."""

Result = TypeVar("Result")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write text or bytes to a temporary file, flush it to the disk, and rename it.

    No reader and no crash ever sees half of the file. Where another program holds it open, the content waits beside it, with a line
    the first time.

    Raises:
        OSError: the directory cannot be written, or the disk is full; nothing half-written is left.
    """
    place_waiting()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if path in _waiting:
        temporary.replace(_beside(path))
        return
    try:
        patiently(lambda: temporary.replace(path))
    except PermissionError as error:
        if not path.exists():  # then it is the directory
            temporary.unlink(missing_ok=True)
            raise
        temporary.replace(_beside(path))
        _wait(path, error)
    else:
        _beside(path).unlink(missing_ok=True)  # left by an earlier process, and older


def newest(path: Path) -> Path:
    """The file that has what was written to `path`: the path itself, or the file that waits beside it."""
    beside = _beside(path)
    return beside if beside.exists() else path


def place_waiting() -> None:
    """Put what waits for this process's files in its place, as far as they are no longer held open."""
    for path in list(_waiting):
        with contextlib.suppress(PermissionError):  # still held
            if (beside := _beside(path)).exists():
                beside.replace(path)
            _waiting.discard(path)


def place_left(directory: Path) -> None:
    """The same for what an earlier process has left in a directory and those in it."""
    for beside in directory.rglob(".*.waiting"):
        path = beside.with_name(beside.name.removeprefix(".").removesuffix(".waiting"))
        try:
            patiently(lambda path=path, beside=beside: beside.replace(path))  # type: ignore[misc]
        except PermissionError as error:
            _wait(path, error)


def patiently(attempt: Callable[[], Result]) -> Result:
    """Do something to a file; if another program holds it, try again for most of a second.

    Raises:
        PermissionError: it is held longer, or may not be written at all.
    """
    for pause in _PAUSES:
        try:
            return attempt()
        except PermissionError:
            time.sleep(pause)
    return attempt()


def unused_path(path: Path) -> Path:
    """Return the path itself, or if something is there already, the first free one of name_2.ending, name_3.ending, …"""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return free


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. NaN is refused, because JSON has none."""
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.waiting")


def _wait(path: Path, error: OSError) -> None:
    if not _waiting:
        atexit.register(place_waiting)
    _waiting.add(path)
    log.warning(
        f"{path}: another program holds it open ({error.strerror}); what belongs there is in {_beside(path).name} beside it, "
        "and takes its place as soon as that is possible"
    )
