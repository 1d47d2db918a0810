"""Independent solvers of reasoning-gym's tasks: is the answer that upstream takes for right really so?

`python scripts/check_oracles.py` asks them about many problems. Each file has one idea; each solver reads the question, works by
another method than upstream where there is one, and returns what is wrong, or None.
"""

from scripts.oracles import (
    algebra,
    arithmetic,
    boards,
    chance,
    dates,
    geometry,
    logic,
    matrices,
    paths,
    patterns,
    programs,
    people,
    puzzles,
    rewriting,
    words,
)
from scripts.oracles.reading import Item, Oracle

_FILES = (
    algebra,
    arithmetic,
    boards,
    chance,
    dates,
    geometry,
    logic,
    matrices,
    paths,
    patterns,
    programs,
    people,
    puzzles,
    rewriting,
    words,
)

ORACLES: dict[str, Oracle] = {task: oracle for file in _FILES for task, oracle in file.ORACLES.items()}

__all__ = ["ORACLES", "Item", "Oracle"]
