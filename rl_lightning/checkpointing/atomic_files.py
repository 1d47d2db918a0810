"""Write files atomically: each appears complete or not at all, even if the process is killed while it writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write text or bytes to a temporary file, flush it to the disk, and rename it.

    No reader and no crash ever sees half of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
