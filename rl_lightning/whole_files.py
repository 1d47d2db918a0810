"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text or bytes under a temporary name, flush to the disk, rename: a reader, or a crash, never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def unused(path: Path) -> Path:
    """The path itself, or where something is there already, the next free of name_2.ending, name_3.ending, …"""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return free


def write_json(path: Path, value: Any) -> None:
    """`write_whole` of indented JSON; NaN is refused, for JSON has none."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
