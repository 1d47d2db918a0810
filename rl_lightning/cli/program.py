"""What this program is called, and its version."""

from __future__ import annotations

import sys
from pathlib import Path

from rl_lightning import __version__

_SCRIPT = "rl-lightning"
"""The console script that setup.cfg declares."""


def program() -> str:
    """The words by which the user called this program, for usage lines and for commands to repeat."""
    return _SCRIPT if Path(sys.argv[0]).stem == _SCRIPT else "python -m rl_lightning"


def version() -> str:
    """The line of `--version`."""
    return f"rl_lightning {__version__}"
