"""Where in the user's own code an exception was raised."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from rl_lightning.types import first_line

_OTHERS = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), "<frozen")
"""Where code that is not the user's begins; that of packages has site-packages in its path."""


def said_by(error: BaseException) -> str:
    """The exception in a few words: its class and message, and the user's own file and line where there is one."""
    place = place_of(error)
    return f"{type(error).__name__}: {first_line(error)}{f' ({place})' if place else ''}"


def place_of(error: BaseException) -> str:
    """The last file and line of the user's own code that the exception went through; empty for none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f"{frame.filename}, line {frame.lineno}" for frame in frames if is_users(frame.filename)]
    return own[-1] if own else ""


def is_users(file: str) -> bool:
    """Whether a source file is neither the program's nor a package's nor Python's."""
    return not file.startswith(_OTHERS) and not {"site-packages", "dist-packages"} & set(Path(file).parts)
