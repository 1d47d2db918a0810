"""One process trains in a run directory at a time, and where it cannot write, it says so."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from rl_lightning.checkpointing.run_lock import FILE, RunLock
from rl_lightning.types import UserError
from tests.runs import run

HOLDER = """
import sys
from pathlib import Path
from rl_lightning.checkpointing.run_lock import RunLock
lock = RunLock()
lock.take(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in the directory `run`."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_run_that_starts_in_the_same_directory_at_the_same_time_is_refused(tmp_path, holder):
    """Neither has written anything yet by which the other could see it."""
    with pytest.raises(UserError, match="another process is training in"):
        run(tmp_path / "run", 1, evaluate=False)
    assert [p.name for p in (tmp_path / "run").iterdir()] == [FILE]


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.wait()
    lock = RunLock()
    lock.take(tmp_path / "run")
    lock.release()
    assert not list((tmp_path / "run").iterdir())


def test_a_process_may_take_it_again_and_leaves_nothing(tmp_path):
    run(tmp_path, 2, evaluate=False)
    run(tmp_path, 3, ckpt_path=str(tmp_path / "checkpoint-2" / "trainer.ckpt"), evaluate=False)
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_fails_gives_it_back(tmp_path, monkeypatch):
    monkeypatch.setattr("rl_lightning.module.GRPOModule.training_step", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, 1, evaluate=False)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("what", ["file", "below a file", "long", "read-only", "full"])
def test_a_directory_that_cannot_be_written_is_one_line_before_the_first_step(tmp_path, monkeypatch, what):
    (tmp_path / "file").write_text("x")
    names = {"file": "file", "below a file": "file/run", "long": "x" * 300}
    root = tmp_path / names.get(what, "run")
    number = {"read-only": errno.EROFS, "full": errno.ENOSPC}.get(what)
    if number:

        def touch(path: Path) -> None:
            raise OSError(number, "no writing")

        monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(UserError, match=r"trainer.default_root_dir: .* cannot be written: "):
        RunLock().take(root)
    assert (tmp_path / "file").read_text() == "x"
