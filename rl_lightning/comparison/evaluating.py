"""Evaluate each contender on one suite by `validate`, one process after the other, so that only one model is in memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_lightning.checkpointing.checkpoints import STATE_FILE, intact_checkpoints
from rl_lightning.comparison.contenders import BASE
from rl_lightning.evaluation import read_result
from rl_lightning.types import UserError


def evaluate(names: Sequence[str], settings: Sequence[str], out: Path) -> dict[str, str]:
    """Run `validate` for each name, the later ones with as many rows at once as the first one had.

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
    files: dict[str, str] = {}
    rows: list[str] = []
    for number, name in enumerate(names, start=1):
        root = out / "evaluations" / f"{number}_{re.sub(r'[^A-Za-z0-9.-]+', '_', name).strip('_')}"
        print(f"evaluating {name}", flush=True)
        arguments = [*settings, *rows, *_model_arguments(name), f"--trainer.default_root_dir={root}"]
        if subprocess.run([sys.executable, "-m", "rl_lightning", "validate", *arguments], check=False).returncode:
            raise UserError(f"compare: {name} could not be evaluated; the lines above say why")
        (file,) = (root / "eval_results").glob("validate_step_*.json")
        files[name] = str(file)
        if "rows_at_once" in (ran_with := read_result(file).get("ran_with", {})):
            rows = [f"--fixed_eval.rows={ran_with['rows_at_once']}"]
    return files


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
