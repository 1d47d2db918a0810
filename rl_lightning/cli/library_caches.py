"""Where libraries keep their caches of a user whose home cannot be written, as in some containers."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile

log = logging.getLogger(__name__)

_CACHES = {"MPLCONFIGDIR": "XDG_CONFIG_HOME", "WANDB_CACHE_DIR": "XDG_CACHE_HOME", "TRITON_CACHE_DIR": "TRITON_HOME"}
"""Caches that may be made again: the variable that moves each of matplotlib, wandb and triton, and one that moves it too. Models of
the hub (HF_HOME) are not among them: they may be there already, and are too large for a temporary directory."""


def move_unwritable_caches() -> None:
    """Give libraries a temporary directory for their caches where the home cannot be written, and say so in a line; each would
    complain in its own way, or fail. To be called before they are imported."""
    home = os.path.expanduser("~")
    try:
        with tempfile.TemporaryFile(dir=home):
            return
    except OSError as error:
        why = f"{home}: {error.strerror}"
    moved = [name for name, other in _CACHES.items() if not (os.environ.get(name) or os.environ.get(other))]
    if not moved:
        return
    place = tempfile.mkdtemp(prefix="rl_lightning_caches_")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    os.environ.update({name: os.path.join(place, name.split("_")[0].lower()) for name in moved})
    log.warning(f"{why}: the caches of libraries are in {place} until this ends ({', '.join(moved)})")
