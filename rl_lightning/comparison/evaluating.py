"""Evaluate each contender on one suite by `validate`, one process after the other, so that only one model is in memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl_lightning.checkpointing.checkpoints import STATE_FILE, intact_checkpoints
from rl_lightning.comparison.contenders import BASE
from rl_lightning.evaluation import read_result, stored_suite
from rl_lightning.types import UserError


def evaluate(names: Sequence[str], settings: Sequence[str], out: Path) -> dict[str, str]:
    """Run `validate` for each name, the later ones with as many rows at once as the first one had, and all at the same levels.

    Args:
        names: a run (its newest intact checkpoint), a checkpoint or adapter directory, `base`, or a model by directory or hub
            name.
        settings: command line of `validate`, such as --config FILE; the same for all.
        out: directory in which each evaluation gets its own directory.

    Returns:
        name to its evaluation file.

    Raises:
        UserError: `validate` failed; it has printed why.
    """
    files: dict[str, Path] = {}
    given = list(settings)
    for number, name in enumerate(names, start=1):
        files[name] = _validate(name, given, out / "evaluations" / f"{number}_{_as_directory(name)}")
        if number == 1 and "rows_at_once" in (ran_with := read_result(files[name]).get("ran_with", {})):
            given.append(f"--fixed_eval.rows={ran_with['rows_at_once']}")
    levels_of = {name: _levels(file) for name, file in files.items()}
    common = _in_common(list(levels_of.values()))
    again = [f"--data.datasets.{task}.levels={json.dumps(levels)}" for task, levels in common.items()]
    for number, name in enumerate(names, start=1):
        if any(levels_of[name][task] != levels for task, levels in common.items()):
            print(f"{name}: once more, at the levels that all can use", flush=True)
            files[name] = _validate(
                name, [*given, *again], out / "evaluations" / f"{number}_{_as_directory(name)}_again"
            )
    return {name: str(file) for name, file in files.items()}


def _validate(name: str, settings: Sequence[str], root: Path) -> Path:
    print(f"evaluating {name}", flush=True)
    arguments = [*settings, *_model_arguments(name), f"--trainer.default_root_dir={root}"]
    if subprocess.run([sys.executable, "-m", "rl_lightning", "validate", *arguments], check=False).returncode:
        raise UserError(f"compare: {name} could not be evaluated; the lines above say why")
    (file,) = (root / "eval_results").glob("validate_step_*.json")
    return file


def _as_directory(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_")


def _levels(file: Path) -> dict[str, list[Any]]:
    """Return the levels of each task at which an evaluation was made; none without a curriculum."""
    suite = stored_suite(file.parent, read_result(file)["suite"])
    return {} if suite is None else {task: c["levels"] for task, c in suite.datasets.items() if "levels" in c}


def _in_common(levels_of: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Return the levels that all have, of the tasks with other levels here and there: a checkpoint has those that the machine could
    use which it was trained on. Fewer than two are no curriculum."""
    found = {}
    for task, levels in levels_of[0].items():
        others = [other.get(task, []) for other in levels_of[1:]]
        common = [level for level in levels if all(level in other for other in others)]
        if any(other != levels for other in others) and len(common) > 1:
            found[task] = common
    return found


def _model_arguments(name: str) -> list[str]:
    """Return the arguments that make `validate` evaluate what the name refers to. A directory is a model where it has a model's
    config, and no training state, as the checkpoint of a model that is trained as a whole has."""
    path = Path(name).expanduser()
    without_adapter = ["--model.policy.adapter=null", "--model.policy.reference=base"]
    if name == BASE:
        return without_adapter
    if path.is_dir() and ((path / STATE_FILE).is_file() or not (path / "config.json").is_file()):
        found = intact_checkpoints(path)
        return ["--ckpt_path", str(found[-1] if found else path)]
    return [f"--model.policy.model_name_or_path={name}", *without_adapter]
