"""What scripts/soak.py finds: growth where there is some, and a run that does not go on where it was killed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import soak
from soaking.processes import Watched, last_step
from soaking.slopes import slope

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and file descriptors")

RUN = """
import sys, time
from pathlib import Path
run, steps = Path(sys.argv[1]), int(sys.argv[2])
run.mkdir(exist_ok=True)
done = max((int(each.name.rpartition("-")[2]) for each in run.glob("checkpoint-*")), default=0)
rows = ["step,reward", *(f"{step},0.5" for step in range(done + 1))]
(run / "metrics.csv").write_text("\\n".join(rows) + "\\n")
for step in range(done + 1, steps + 1):
    time.sleep(0.005)
    with (run / "metrics.csv").open("a") as file:
        file.write(f"{step},0.5\\n")
    if step % 10 == 0:
        (run / f"checkpoint-{step}").mkdir()
"""


def test_a_slope_is_found_beside_noise_and_none_where_there_is_none():
    noise = np.random.default_rng(0).normal(0, 1, 1000)
    steps = list(range(1000))
    grown = slope(steps, list(700 + 0.02 * np.arange(1000) + noise))
    assert grown.low > 0
    assert grown.low < 20 < grown.high
    flat = slope(steps, list(700 + noise))
    assert flat.low < 0 < flat.high


def test_memory_files_threads_and_processor_time_of_all_processes_are_added_up():
    program = """if True:
        import subprocess, sys, threading, time
        asleep = "import time; print(flush=True); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", asleep], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(flush=True)
        sys.stdin.readline()
        files = [open(sys.executable) for _ in range(7)]
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        until = time.process_time() + 0.3
        while time.process_time() < until: pass
        print(flush=True)
        time.sleep(60)"""
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    watched = Watched(psutil.Process(process.pid))
    watched.sample(1)
    process.stdin.write(b"go\n")
    process.stdin.flush()
    process.stdout.readline()
    watched.sample(2)
    before, after = watched.samples
    assert after["files"] - before["files"] == 7
    assert after["threads"] - before["threads"] == 1
    assert before["processes"] == after["processes"] == 2
    assert after["processor_s"] - before["processor_s"] >= 0.25
    assert before["main_mb"] > 0
    assert before["workers_mb"] > 0
    process.kill()
    process.wait()
    assert [each.pid for each in watched.left(0.1)] == [pid for pid in watched.seen if pid != process.pid], "its child"


def test_processor_time_is_that_of_a_step():
    samples = [{"step": float(step), "processor_s": 0.3 * step} for step in (0, 2, 3, 7)]
    steps, milliseconds = soak._per_step(samples)
    assert steps == [2, 3, 7]
    assert milliseconds == pytest.approx([300, 300, 300])


def test_the_last_step_is_that_of_a_complete_row(tmp_path):
    assert last_step(tmp_path) == -1
    (tmp_path / "metrics.csv").write_text("step,reward\n0,1\n1,1\n12")
    assert last_step(tmp_path) == 1


def test_a_run_is_killed_as_often_as_asked_and_goes_on(tmp_path, monkeypatch):
    run = tmp_path / "killed"
    starts = []

    def start(run: Path, steps: int, threads: int) -> subprocess.Popen:
        starts.append(max((int(each.name.rpartition("-")[2]) for each in run.glob("checkpoint-*")), default=0))
        return subprocess.Popen([sys.executable, "-c", RUN, str(run), str(steps)])

    monkeypatch.setattr(soak, "start", start)
    monkeypatch.setattr(soak, "SECONDS_STARTING", 0.05)
    monkeypatch.setattr(soak, "watching", lambda run: soak.nullcontext())
    found = soak.killed(run, 10**6, 60, 6, 1, random.Random(1))
    assert len(found["kills"]) == 6
    assert found["processes_left"] == []
    assert len(starts) == 7
    assert starts == sorted(starts)
    assert soak.keep_checkpoint(run, 60)


def test_a_run_that_ends_by_itself_is_no_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "start", lambda *_: subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]))
    with pytest.raises(SystemExit, match="exit status 3"):
        soak.undisturbed(tmp_path / "whole", 60, 60, 1)
