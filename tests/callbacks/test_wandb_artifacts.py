"""Which checkpoints become artifacts is the logger's `log_model`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import WandbLogger

from rl_lightning.callbacks.wandb_artifacts import log_artifact
from tests.callbacks.test_best_checkpoint import write


class Recorded:
    """Stands in for a run of wandb."""

    id = "abc"

    def __init__(self):
        self.artifacts = []

    def log_artifact(self, path, name, type, aliases):
        self.artifacts.append((path, name, type, aliases))


@pytest.mark.parametrize(("log_model", "steps"), [("all", [1, 2]), (True, [2]), (False, [])])
def test_by_one_switch(tmp_path, monkeypatch, log_model, steps):
    run = Recorded()
    monkeypatch.setattr(WandbLogger, "experiment", run)
    trainer = SimpleNamespace(loggers=[WandbLogger(offline=True, log_model=False), object()])
    trainer.loggers[0]._log_model = log_model  # Lightning refuses it together with offline, where there is no server
    write(tmp_path, 1, 0.5)
    log_artifact(trainer, tmp_path / "checkpoint-1", at_end=False)
    write(tmp_path, 2, 0.25)
    log_artifact(trainer, tmp_path / "checkpoint-2", at_end=True)
    of_step = {1: ["step-1", "best", "latest"], 2: ["step-2", "latest"]}
    assert run.artifacts == [(str(tmp_path / f"checkpoint-{n}"), "model-abc", "model", of_step[n]) for n in steps]
