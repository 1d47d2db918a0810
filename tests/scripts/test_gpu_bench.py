"""The runner of scripts/gpu_bench.py: it outlives its jobs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import gpu_bench
import pytest
from gpu_benchmark.jobs import PARTS, Job, all_jobs


def test_a_job_that_fails_leaves_the_others_and_the_file(tmp_path, monkeypatch):
    """In processes of their own, as on a GPU."""
    out = tmp_path / "out.json"
    written = []
    monkeypatch.setattr(gpu_bench, "_write", lambda path, results: written.append(json.dumps(results)))
    every = {job.part: job for job in all_jobs("cpu", True, tmp_path)}
    monkeypatch.setattr(gpu_bench, "LONGEST", 36_000)  # of no account here
    broken = Job("steps", "broken", ("device", "measure"), {"device": "no such device"})
    done = gpu_bench.run([every["device"], broken, every["checkpoints"], every["agreement"]], out, 36_000, tmp_path, {})
    assert len(written) == 4
    assert "matmul_tflops" in json.loads(written[0])["parts"]["device"]
    failed = done["parts"]["steps"]["broken"]
    assert failed["error"].startswith("RuntimeError: ")
    assert any("Traceback" in line for line in failed["log"])
    assert done["parts"]["checkpoints"]["toy"]["bytes"]
    assert done["parts"]["agreement"]["merged"]["graphs_against_the_same_steps"]["tokens"] == 1
    assert done["summary"]["fits"] == {"broken": False}
    assert not done["left_out"]


@pytest.fixture
def hanging(monkeypatch):
    """Jobs that never end by themselves, however fast the machine is."""

    class Hanging(gpu_bench.Worker):
        def __init__(self, *args):
            super().__init__(*args)
            os.kill(self.process.pid, signal.SIGSTOP)

    monkeypatch.setattr(gpu_bench, "Worker", Hanging)


def test_time_that_is_up_ends_a_job_and_names_the_others(tmp_path, hanging):
    out = tmp_path / "out.json"
    endless = Job("device", "", ("device", "measure"), {"device": "cpu"})
    done = gpu_bench.run([endless, Job("learning", "", ("learning", "train"), {}, 30)], out, 1.5, tmp_path, {})
    assert done["parts"]["device"]["error"].startswith("stopped after")
    assert "it needs about 30" in done["left_out"]["learning"]
    assert json.loads(out.read_text())["left_out"] == done["left_out"]


def test_a_job_that_hangs_is_ended_for_the_next_one(tmp_path, monkeypatch, hanging):
    """Neither would ever end; the limit of the whole is far away."""
    monkeypatch.setattr(gpu_bench, "LONGEST", 1)
    job = Job("device", "one", ("device", "measure"), {"device": "cpu"})
    done = gpu_bench.run([job, replace(job, name="again")], tmp_path / "out.json", 36_000, tmp_path, {})
    errors = {name: found["error"] for name, found in done["parts"]["device"].items()}
    assert errors == {"one": "stopped after 1 s", "again": "stopped after 1 s"}


def test_the_signal_that_ends_a_worker_is_named(tmp_path):
    job = Job("device", "", ("device", "measure"), {"device": "cpu"})
    worker = gpu_bench.Worker(job, tmp_path, 0)
    os.kill(worker.process.pid, signal.SIGSEGV)
    assert worker.run(job, {}, 36_000)["error"] == "ended by SIGSEGV"


def test_every_part_has_a_job_of_both_sizes_and_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    for toy in (True, False):
        found = all_jobs("cuda", toy, tmp_path)
        assert {job.part for job in found} == set(PARTS)
        names = [(job.part, job.name) for job in found]
        assert len(set(names)) == len(names)
        for job in found:
            part = importlib.import_module(f"gpu_benchmark.{job.calls[0]}")
            assert callable(getattr(part, job.calls[1]))
    (tmp_path / "there.json").touch()
    for arguments in (["--out", str(tmp_path / "there.json")], ["--out", "new.json", "--device", "cpu"]):
        monkeypatch.setattr("sys.argv", ["gpu_bench.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            gpu_bench.main()
        assert ended.value.code == 2


def test_the_summary_compares_last_steps_and_plan_with_peak():
    def side(seconds: float) -> dict:
        return {"steps": [{"seconds": 99.0}, {"seconds": seconds}]}

    parts = {"peer": {"ours": side(2.0), "trl": side(11.0)}, "learning": {"seconds_to_target": 40.0}}
    parts["steps"] = {
        "one": {
            "fits": True,
            "predicted": {"tensors": {"load": 5, "rollout": 30}},
            "peaks": {"load": {"allocated": None}, "rollout": {"allocated": 20}},
        },
        "other": {"error": "it did not even load"},
    }
    found = gpu_bench.summary(parts)
    assert found["fits"] == {"one": True, "other": False}
    assert found["predicted_by_measured"] == {"one": {"rollout": 1.5}}
    assert found["times_as_fast_as_trl"] == 5.5
    assert found["seconds_to_target"] == 40.0
    assert gpu_bench.summary({})["times_as_fast_as_trl"] is None


def test_checkpoints_go_where_they_are_told_and_are_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_bench, "run", lambda jobs, out, seconds, directory, about: {"summary": str(directory)})
    monkeypatch.setattr("sys.argv", ["gpu_bench.py", "--out", str(tmp_path / "o.json"), "--workdir", str(tmp_path)])
    assert gpu_bench.main() == 0
    assert list(Path(tmp_path).iterdir()) == []
