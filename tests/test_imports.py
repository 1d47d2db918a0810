"""Who may import whom, read from the source: downwards only, and each library in its own package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rl_lightning"
PACKAGES = [
    "types",
    "checkpointing",
    "statistics",
    "sandbox",
    "distributed",
    "objective",
    "curriculum",
    "environments",
    "scoring",
    "evaluation",
    "policy",
    "memory",
    "rollout",
    "loggers",
    "report",
    "hub",
    "training",
    "data",
    "module",
    "callbacks",
    "comparison",
    "export",
    "cli",
    "__main__",
]
"""Packages and files at the root, from the lowest up: each may import itself and those before it (docs/architecture.md)."""

ROOT_FILES = {"__init__", "__main__", "data", "module", "types"}
"""What a newcomer sees first."""

LIBRARIES = {
    "reasoning_gym": {"environments"},
    "datasets": {"environments"},
    "pebble": {"sandbox"},
    "peft": {"policy", "export"},
    "bitsandbytes": {"policy"},
    "lightning": {"training", "module", "data", "callbacks", "loggers", "cli"},
    "matplotlib": {"report", "comparison"},
    "rich": {"callbacks"},
    "ray": {"callbacks"},
    "vllm": {"rollout"},
    "pyarrow": {"environments", "loggers", "report", "export"},
    "huggingface_hub": {"report", "hub", "callbacks", "export"},
    "cyllama": {"export"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def package(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def test_every_room_is_named_and_the_root_holds_only_what_comes_first():
    assert {package(path) for path in FILES} - {"__init__"} == set(PACKAGES)
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_FILES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    here = package(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert here in LIBRARIES.get(top, {here}), f"{top} belongs to {LIBRARIES.get(top)}"
        if top != "rl_lightning" or not rest or rest.split(".")[0] == here:
            continue
        there = rest.split(".")[0]
        assert PACKAGES.index(there) < PACKAGES.index(here), f"{here} may not import {there}"
        if here == "report":
            assert there in ("types", "statistics", "checkpointing"), "report reads files, never the trainer"


def test_only_environments_read_a_problems_payload():
    for path in FILES:
        if package(path) != "environments":
            names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
            assert "payload" not in names, path


def test_statistics_need_no_more_than_numpy_and_scipy():
    for path in (PACKAGE / "statistics").glob("*.py"):
        outside = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names
        assert outside <= {"numpy", "scipy", "rl_lightning"}
        assert all(name.startswith("rl_lightning.statistics") for name in imports(path) if name.startswith("rl_"))


def test_the_objective_needs_torch_only():
    for path in (PACKAGE / "objective").rglob("*.py"):
        outside = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names
        assert outside <= {"torch", "rl_lightning"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert path.name not in ("utils.py", "helpers.py", "common.py")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is longer than a screen"
