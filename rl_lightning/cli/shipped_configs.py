"""Configs that ship, by their names: `quickstart` for configs/quickstart.yaml, `tasks/logic` for configs/tasks/logic.yaml."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

import rl_lightning
from rl_lightning.types import UserError

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")
"""A path, and no settings in YAML, which `--config` takes too."""

_FILE = re.compile(r"\.(ya?ml|json)$")


def shipped_configs() -> dict[str, Path]:
    """The configs by name, which is the path in `configs/` without its ending."""
    package = Path(rl_lightning.__file__).parent
    installed = package / "configs"  # a wheel has them there (setup.cfg), a checkout beside the package
    root = installed if installed.is_dir() else package.parent / "configs"
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def config_file(value: str) -> str:
    """The file that a value of `--config` means.

    Args:
        value: a file; the name of a config that ships; or settings in YAML. A file `NAME` or `NAME.yaml` in the present directory
            goes before the config of that name.

    Returns:
        the path; what is no name, unchanged.

    Raises:
        UserError: there is neither such a file nor such a config.
    """
    if _FILE.search(value) and not set(value) & set("{\n") and not Path(value).is_file():
        raise UserError(f"--config {value}: there is no such file{_meant(Path(value))}")
    if not _NAME.fullmatch(value) or _FILE.search(value) or Path(value).is_file():
        return value
    if (own := Path(f"{value}.yaml")).is_file():
        return str(own)
    shipped = shipped_configs()
    if value in shipped:
        return str(shipped[value])
    near = difflib.get_close_matches(value, shipped, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? Else it is" if near else f"there are {', '.join(shipped)}; or it is"
    raise UserError(
        f"--config {value}: no config of this name ships, and there is no such file; {hint} the path of a file"
    )


def _meant(missing: Path) -> str:
    """The file beside it, or the config that ships, that may have been meant."""
    there = [path for path in missing.parent.glob("*.*") if _FILE.search(path.name)]
    beside = {path.name: str(path) for path in there} | {f"{name}.yaml": name for name in shipped_configs()}
    near = difflib.get_close_matches(missing.name, beside, n=1, cutoff=0.75)
    return f"; did you mean {beside[near[0]]}?" if near else ""


def is_config(word: str) -> bool:
    """Whether a word names a config that ships, or a file of settings that exists."""
    return word in shipped_configs() or (_FILE.search(word) is not None and Path(word).is_file())


def with_config_files(words: Sequence[str]) -> list[str]:
    """The words of a command line with the file in place of each `--config` that names one."""
    found, is_value = [], False
    for word in words:
        if is_value:
            word = config_file(word)
        elif word.startswith("--config="):
            word = f"--config={config_file(word.removeprefix('--config='))}"
        is_value = not is_value and word in ("-c", "--config")
        found.append(word)
    return found
