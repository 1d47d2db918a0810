"""Damaged checkpoints and full disks: what is lost is named, and the last good checkpoint stays."""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from rl_lightning.checkpointing.checkpoints import STATE_FILE, checkpoints, damage, resolve_checkpoint
from rl_lightning.cli.main import main
from rl_lightning.types import UserError
from tests.runs import SUMS, run, same


def damaged(root: Path, how: str) -> Path:
    newest = checkpoints(root)[-1]
    state = newest / STATE_FILE
    if how == "truncated":
        state.write_bytes(state.read_bytes()[:1000])
    elif how == "one bit":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(bytes(data))
    elif how == "missing":
        (newest / "adapter_model.safetensors").unlink()
    else:
        (newest / "checksums.json").write_text("{")
    return newest


@pytest.mark.parametrize("how", ["truncated", "one bit", "missing", "foreign"])
def test_a_damaged_checkpoint_is_named_and_last_passes_over_it(tmp_path, caplog, how):
    run(tmp_path / "whole", 4, evaluate=False)
    run(tmp_path / "hurt", 4, evaluate=False)
    newest = damaged(tmp_path / "hurt", how)
    with pytest.raises(UserError, match="is damaged: "):
        resolve_checkpoint(str(newest), tmp_path / "hurt")
    assert resolve_checkpoint("last", tmp_path / "hurt").parent.name == "checkpoint-2"
    assert f"skipping {newest}" in caplog.text
    run(tmp_path / "hurt", 4, ckpt_path=str(resolve_checkpoint("last", tmp_path / "hurt")), evaluate=False)
    assert damage(newest) is None
    same(tmp_path / "hurt", tmp_path / "whole", 4)


def test_going_on_past_a_damaged_checkpoint_never_deletes_the_last_whole_one(tmp_path):
    """Four is damaged; the run goes on from two, and stops at three, before four."""
    from rl_lightning.callbacks import AdapterCheckpoint

    run(tmp_path, 4, evaluate=False)
    damaged(tmp_path, "truncated")
    keep_one = AdapterCheckpoint(save_steps=1, save_total_limit=1)
    run(tmp_path, 3, ckpt_path=str(resolve_checkpoint("last", tmp_path)), evaluate=False, callbacks=[keep_one])
    assert resolve_checkpoint("last", tmp_path).parent.name == "checkpoint-3"


@pytest.mark.parametrize("names", ["[]", "[1]", "7"])
def test_odd_checksums_are_damage(tmp_path, names):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "checksums.json").write_text(names)
    assert damage(tmp_path / "checkpoint-1") is not None


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file")]
)
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch, error):
    save = Trainer.save_checkpoint

    def full(self, path, *args, **kwargs):
        if self.global_step == 4:
            Path(path).write_bytes(b"half a file")
            raise error
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    with pytest.raises(UserError, match=r"checkpoint-4 cannot be written: .*checkpoint-2 is intact"):
        run(tmp_path, 6, evaluate=False)
    assert [damage(p) for p in checkpoints(tmp_path)] == [None]
    assert not list(tmp_path.glob(".*"))


def test_a_real_limit_of_the_file_system_is_one_line(tmp_path, capfd):
    """The system refuses files of over 200 kB, as a full disk refuses any."""
    resource = pytest.importorskip("resource")
    config = tmp_path / "config.yaml"
    specs = {name: {"config": spec.config} for name, spec in SUMS.items()}
    data = {"datasets": specs, "system_prompt": "", "num_workers": 0, "eval_num_samples": 2, "prompts_per_step": 1}
    sampling = {"num_generations": 2, "max_new_tokens": 4}
    trainer = {"accelerator": "cpu", "max_steps": 1, "enable_progress_bar": False}
    config.write_text(json.dumps({"trainer": trainer, "model": {"sampling": sampling}, "data": data}))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        status = main(["fit", "--config", str(config), f"--trainer.default_root_dir={tmp_path / 'run'}"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert error.startswith(f"error: {tmp_path / 'run' / 'checkpoint-1'} cannot be written")
    assert not checkpoints(tmp_path / "run")
