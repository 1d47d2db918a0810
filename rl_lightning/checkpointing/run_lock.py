"""One process trains in a run directory at a time, and only where it can write what a run writes."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import IO

from rl_lightning.types import UserError

FILE = ".lock"
"""Locked by the system for as long as the process lives, however it ends."""

_LONGEST = 64
"""Characters of the longest path below a run directory, roughly: that of a file in a checkpoint which is being written."""


class RunLock:
    """The right to train in one run directory."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def take(self, root: Path) -> None:
        """Make the directory if it is not there, and take the lock; one that this object holds already is given back.

        Raises:
            UserError: another process trains there, or it cannot be written.
        """
        self.release()
        try:
            root.mkdir(parents=True, exist_ok=True)
            (longest := root / f".{'x' * (_LONGEST - 1)}").touch()
            longest.unlink()
            self._file = _opened(root / FILE)
        except BlockingIOError as error:
            raise UserError(
                f"trainer.default_root_dir: another process is training in {root}; wait for it to end, or name another directory"
            ) from error
        except OSError as error:
            raise UserError(f"trainer.default_root_dir: {root} cannot be written: {error.strerror}") from error

    def release(self) -> None:
        """Let another process train there."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # Windows removes no open file
                os.unlink(self._file.name)
            self._file.close()
            self._file = None


def _opened(path: Path) -> IO[bytes]:
    """Open a file and lock it; one that its last holder has removed in between is opened again."""
    while True:
        file = path.open("ab")
        try:
            _lock(file)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a network's file system without locks: there the user has to take care
        return
