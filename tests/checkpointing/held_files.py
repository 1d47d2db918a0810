"""A stand-in for Windows, where a file that another program holds open can be neither replaced, removed nor written."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from rl_lightning.checkpointing import atomic_files


class HeldFiles(set[Path]):
    """The paths that are held open; remove one to close it."""

    def refuse(self, *paths: str | os.PathLike[str]) -> None:
        for path in paths:
            for held in self:
                if (
                    Path(path) == held or Path(path) in held.parents
                ):  # nor can a directory be moved with an open file in it
                    raise PermissionError(errno.EACCES, "The process cannot access the file", str(held))


@pytest.fixture
def held(monkeypatch) -> HeldFiles:
    held = HeldFiles()
    for name in ("replace", "rename"):
        move = getattr(os, name)
        monkeypatch.setattr(os, name, lambda a, b, move=move, **kw: (held.refuse(a, b), move(a, b, **kw))[1])
    unlink, opened = os.unlink, io.open
    monkeypatch.setattr(
        os, "unlink", lambda path, **kw: (held.refuse(path) if "dir_fd" not in kw else None, unlink(path, **kw))[1]
    )

    def open_(file, mode="r", *args, **kwargs):
        if set(mode) & set("wa+"):
            held.refuse(file)
        return opened(file, mode, *args, **kwargs)

    monkeypatch.setattr(io, "open", open_)
    monkeypatch.setattr(atomic_files, "_PAUSES", (0.0,))
    monkeypatch.setattr(atomic_files, "_waiting", set())
    return held
