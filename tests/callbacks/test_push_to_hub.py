"""Checkpoints go to a stand-in for the hub while a run trains; a failed push never ends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_lightning.callbacks import PushToHub
from rl_lightning.types import UserError
from tests.hub.fixtures import hub  # noqa: F401
from tests.runs import run


def test_the_last_checkpoint_goes_in_a_private_repository_without_what_resuming_needs(tmp_path, hub, capsys):  # noqa: F811
    run(tmp_path, 3, evaluate=False, callbacks=[PushToHub("me/mine")])
    stored = hub.repositories["me/mine"]
    assert stored.private
    assert stored.messages == ["checkpoint of step 3"]
    here = tmp_path / "checkpoint-3"
    assert stored.files["adapter_model.safetensors"] == (here / "adapter_model.safetensors").read_bytes()
    assert stored.files["README.md"] == (here / "README.md").read_bytes()
    assert json.loads(stored.files["adapter_config.json"])["base_model_name_or_path"] == "tiny"
    assert {"trainer.ckpt", "checksums.json"}.isdisjoint(stored.files)
    assert f"checkpoint-3 is at {hub.url}/me/mine, private" in capsys.readouterr().out


def test_every_n_steps_and_a_failed_one_is_a_line_and_tried_again(tmp_path, hub, caplog):  # noqa: F811
    class Repaired(PushToHub):
        """The hub refuses until the third step."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            self._wait()  # so that the order is the same each time
            if trainer.global_step == 3:
                hub.refuse.clear()

    hub.refuse["/commit/"] = 500
    run(tmp_path, 6, evaluate=False, callbacks=[Repaired("me/mine", push_steps=2)])
    assert "the hub answered 500" in caplog.text
    assert hub.repositories["me/mine"].messages == ["checkpoint of step 4", "checkpoint of step 6"]


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses_everything_changes_nothing(tmp_path, hub, caplog, status):  # noqa: F811
    hub.refuse["/api/"] = status
    run(tmp_path, 2, evaluate=False, callbacks=[PushToHub("me/mine", push_steps=1)])
    assert (tmp_path / "train_results.json").is_file()
    assert "the run is not affected" in caplog.text
    assert not hub.repositories


def test_the_best_is_chosen_by_evaluation(tmp_path, hub, monkeypatch):  # noqa: F811
    asked = []
    monkeypatch.setattr(
        "rl_lightning.callbacks.push_to_hub.best_checkpoint",
        lambda root: asked.append(root) or Path(root) / "checkpoint-2",
    )
    run(tmp_path, 4, callbacks=[PushToHub("me/mine", which="best")])
    assert asked
    assert hub.repositories["me/mine"].messages == ["checkpoint of step 2"]


def test_other_ranks_and_stopped_runs_push_nothing(hub):  # noqa: F811
    class Module:
        interrupted = False

        class collective:
            rank = 1

    callback = PushToHub("me/mine", push_steps=1)
    for rank, interrupted in ((1, False), (0, True)):
        Module.collective.rank, Module.interrupted = rank, interrupted
        callback.on_fit_end(None, Module)
    Module.collective.rank = 1
    callback.on_fit_start(None, Module)
    callback._due = True
    callback.on_train_batch_end(None, Module, None, None, 0)
    assert not hub.requests


def test_nothing_is_pushed_unless_configured(tmp_path, hub):  # noqa: F811
    run(tmp_path, 2, evaluate=False, callbacks=[PushToHub()])
    assert not hub.requests


def test_settings():
    with pytest.raises(UserError, match="it must be owner/name"):
        PushToHub("mine")
    with pytest.raises(UserError, match="PushToHub.push_steps: 0"):
        PushToHub("me/mine", push_steps=0)
    with pytest.raises(UserError, match="PushToHub.which"):
        PushToHub("me/mine", which="worst")
