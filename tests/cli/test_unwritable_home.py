"""A home that cannot be written: nothing fails, and one line says where the caches are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rl_lightning.cli.library_caches import move_unwritable_caches
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.types import UserError
from tests.conftest import ROOT

MOVED = ("MPLCONFIGDIR", "WANDB_CACHE_DIR", "TRITON_CACHE_DIR")
OTHERS = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TRITON_HOME", "HF_HOME", "LOCALAPPDATA")
TINY = [
    *("fit", "--config", "quickstart", "--trainer.max_steps=1", "--data.prompts_per_step=1", "--data.num_workers=0"),
    *("--model.sampling.num_generations=2", "--model.sampling.max_new_tokens=4", "--data.eval_num_samples=1"),
]


@pytest.fixture
def home(tmp_path) -> Path:
    """A home below a file: not even a user who may do anything can write there."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "home"


def as_user(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in (*MOVED, *OTHERS)}
    environment = kept | {"HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "rl_lightning", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=home.parents[1])


def test_a_command_says_one_line(home):
    done = as_user(home, "tasks")
    assert done.returncode == 0
    assert "chain_sum" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{home}: ")
    assert line.endswith(f"({', '.join(MOVED)})")
    assert not Path(line.split(" are in ")[1].split(" until ")[0]).exists()  # removed by now


def test_a_run_with_wandb_says_nothing_else(home):
    pytest.importorskip("wandb")
    logger = ["--trainer.logger=WandbLogger", "--trainer.logger.offline=true", "--trainer.logger.save_dir=run"]
    done = as_user(home, *TINY, *logger, "--trainer.default_root_dir=run")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert said.count(str(home)) == 1
    assert "Traceback" not in said
    assert "failed" not in said
    assert " INFO " not in said  # wandb's service writes its log to the terminal where it has no other place


def test_what_the_user_has_moved_stays(home, monkeypatch, caplog):
    for name in (*MOVED, *OTHERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for name, value in zip(MOVED, ("a", "b", "c"), strict=True):
        monkeypatch.setenv(name, value)
    move_unwritable_caches()
    assert [os.environ[name] for name in MOVED] == ["a", "b", "c"]
    assert not caplog.messages
    monkeypatch.delenv("WANDB_CACHE_DIR")
    move_unwritable_caches()
    assert [os.environ[name] for name in MOVED[::2]] == ["a", "c"]
    assert Path(os.environ["WANDB_CACHE_DIR"]).parent.is_dir()
    assert caplog.messages[0].endswith("(WANDB_CACHE_DIR)")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_that_cannot_be_stored_names_the_setting(wrapped, monkeypatch):
    def fail(*args, **kwargs):
        error = PermissionError(13, "Permission denied", "/home/me/.cache")
        if wrapped:
            raise OSError("PermissionError at /home/me/.cache. Common causes: 1)") from error
        raise error

    monkeypatch.setattr("rl_lightning.policy.loading.AutoTokenizer.from_pretrained", fail)
    with pytest.raises(UserError, match=r"'me/mine': /home/me/.cache: Permission denied; set HF_HOME to a directory"):
        load_tokenizer("me/mine")
