"""Evaluate each subject on one suite, each in a process of its own, so that only one model is in memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_lightning.checkpoints import whole_checkpoints
from rl_lightning.comparison.subjects import BASE
from rl_lightning.types import UserError


def evaluate(names: Sequence[str], settings: Sequence[str], out: Path) -> dict[str, str]:
    """Run `validate` for each name.

    Args:
        names: a run (its newest whole checkpoint), a checkpoint or adapter directory, `base`, or a model by directory or hub
            name.
        settings: of `validate`, such as --config FILE; the same for all.
        out: where each gets a directory.

    Returns:
        name to the evaluation file.

    Raises:
        UserError: `validate` did not succeed; it has said why.
    """
    files = {}
    for number, name in enumerate(names, start=1):
        root = out / "evaluations" / f"{number}_{re.sub(r'[^A-Za-z0-9.-]+', '_', name).strip('_')}"
        print(f"evaluating {name}", flush=True)
        what = [*settings, *_chosen(name), f"--trainer.default_root_dir={root}"]
        if subprocess.run([sys.executable, "-m", "rl_lightning", "validate", *what], check=False).returncode:
            raise UserError(f"compare: {name} could not be evaluated; what was said above tells why")
        (file,) = (root / "eval_results").glob("validate_step_*.json")
        files[name] = str(file)
    return files


def _chosen(name: str) -> list[str]:
    """The settings by which `validate` takes it."""
    path = Path(name).expanduser()
    if name == BASE:
        return []
    if path.is_dir() and not (path / "config.json").is_file():  # which only whole models have
        found = whole_checkpoints(path)
        return ["--ckpt_path", str(found[-1] if found else path)]
    return [f"--model.policy.model_name_or_path={name}"]
