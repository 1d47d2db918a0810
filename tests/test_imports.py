"""Who may import whom, read from the source: downwards only, and each library in its own room."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rl_lightning"
FLOORS = [
    {"types", "whole_files", "isolation", "statistics"},
    {"objective", "curriculum"},
    {"tasks", "scoring", "rollout", "evaluation"},
    {"groups"},
    {"policy", "data", "metrics", "resume", "recovery", "checkpoints", "rollout_files", "stalls", "report"},
    {"trainable_policy"},
    {"answering_policy"},
    {"module"},
    {"callbacks", "loggers"},
    {"lightning_cli", "comparison", "chat"},
    {"cli"},
    {"__main__"},
]
LIBRARIES = {
    "reasoning_gym": {"tasks"},
    "pebble": {"isolation"},
    "peft": {"policy"},
    "bitsandbytes": {"policy"},
    "lightning": {"trainable_policy", "module", "data", "callbacks", "loggers", "lightning_cli"},
    "matplotlib": {"report", "comparison"},
    "rich": {"callbacks"},
    "pyarrow": {"rollout_files", "report"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    here = room(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert here in LIBRARIES.get(top, {here}), f"{top} belongs to {LIBRARIES.get(top)}"
        if top != "rl_lightning" or not rest or rest.split(".")[0] == here:
            continue
        there = rest.split(".")[0]
        if here == "report":
            assert there in ("types", "statistics", "whole_files"), "report reads files, never the trainer"
            continue
        assert floor(there) <= floor(here), f"{here} may not import {there}"


def test_statistics_need_numpy_only():
    for path in (PACKAGE / "statistics").glob("*.py"):
        outside = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names
        assert outside <= {"numpy", "rl_lightning"}
        assert all(name.startswith("rl_lightning.statistics") for name in imports(path) if name.startswith("rl_"))


def test_the_objective_needs_torch_only():
    for path in (PACKAGE / "objective").glob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert tops <= {"__future__", "math", "typing", "collections", "dataclasses", "torch", "rl_lightning"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert path.name not in ("utils.py", "helpers.py", "common.py")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is longer than a screen"
