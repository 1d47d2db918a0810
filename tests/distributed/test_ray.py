"""Two workers of Ray, one of which is killed: Ray starts both again, and the run ends as that of one process. Takes a minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.distributed.test_torch_ranks import CONFIG, FEW, alike, fit

pytest.importorskip("ray")
pytestmark = pytest.mark.ray


def by_ray(root: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "ray_train.py"), "--workers", "2", "--config", str(CONFIG)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run(
        [*command, *FEW, f"--trainer.default_root_dir={root}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        timeout=400,
    )


def test_a_killed_worker_is_started_again_and_the_run_ends_as_that_of_one_process(tmp_path):
    fit(tmp_path / "alone", "--trainer.max_steps=8")
    killed = {"step": 6, "file": str(tmp_path / "killed")}
    callback = {"class_path": "tests.distributed.killed_once.KilledOnce", "init_args": killed}
    run = by_ray(tmp_path / "ray", "--trainer.max_steps=8", f"--trainer.callbacks+={json.dumps(callback)}")
    assert run.returncode == 0, run.stdout[-3000:]
    assert (tmp_path / "killed").exists()
    assert run.stdout.count("2 ranks share the 3 prompts of a step") == 2, "they were started twice"
    assert json.loads((tmp_path / "ray" / "train_results.json").read_text())["resumed_at_step"] == 4
    alike(tmp_path / "alone", tmp_path / "ray", 8)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--model.learning_rate=-1", "error: model.learning_rate: -1.0 is not allowed; it must be above 0"),
        ("--trainer.devices=2", "error: --trainer.devices=2: this is set here; see --workers and --gpu"),
    ],
)
def test_a_mistake_is_one_line_before_any_worker_starts(tmp_path, word, said):
    run = by_ray(tmp_path / "ray", word)
    assert run.returncode == 2
    assert run.stdout.splitlines()[-1].startswith(said)
    assert not (tmp_path / "ray").exists()
