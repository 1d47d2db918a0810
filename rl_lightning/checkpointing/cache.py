"""Where a machine keeps what every run would otherwise have to find out again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory(part: str) -> Path:
    """The directory of a part of the cache, which may not be there yet: below RL_LIGHTNING_CACHE, else the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("RL_LIGHTNING_CACHE") or os.path.join(caches, "rl_lightning"), part)
