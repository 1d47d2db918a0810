"""Where a machine keeps what every run would otherwise have to find out again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_directory(part: str) -> Path:
    """The directory of a part of the cache, which may not be there yet: below RL_LIGHTNING_CACHE, else the user's cache.

    Absolute, because worker processes change their directory. Of a user without a home it is in the temporary directory.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    if caches.startswith("~"):
        caches = tempfile.gettempdir()
    return Path(os.environ.get("RL_LIGHTNING_CACHE") or os.path.join(caches, "rl_lightning"), part).absolute()
