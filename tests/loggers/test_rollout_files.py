"""Rollouts in Parquet: readable at every moment, and the same after a kill as without one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rl_lightning.loggers.rollout_files import SCHEMA, RolloutFiles, drop_steps_after

WRITER = """
import sys
from pathlib import Path
from tests.loggers.test_rollout_files import step_rows
from rl_lightning.loggers.rollout_files import RolloutFiles
files = RolloutFiles(Path(sys.argv[1]), 4)
for step in range(int(sys.argv[2]), 10_000):
    files.append(step, step_rows(step))
    print(step, flush=True)
"""


def step_rows(step: int) -> list[dict[str, object]]:
    """Three rows whose contents follow from the step."""
    texts = dict.fromkeys(("task", "prompt", "completion", "answer", "expected", "finish"), f"text {step} é\n")
    numbers = dict.fromkeys(("partial", "reward", "advantage", "mean_logprob", "entropy"), step / 7)
    rest = {
        "failure": None,
        "logprob_mismatch": None,
        "exact": 1.0,
        "format": True,
        "kept": True,
        "tokens": step,
        "group": 0,
    }
    return [{**texts, **numbers, **rest, "index": n} for n in range(3)]


def whole(directory: Path) -> int:
    """Check that steps 1 to some N are there, each once and in order, and return N."""
    table = pd.read_parquet(directory)
    steps = list(table.step)
    assert steps == [step for step in range(1, len(steps) // 3 + 1) for _ in range(3)]
    assert list(table.completion) == [f"text {step} é\n" for step in steps]
    return len(steps) // 3


def test_a_chunk_is_one_file_and_pandas_reads_all_in_one_line(tmp_path):
    files = RolloutFiles(tmp_path, steps_per_file=4)
    for step in range(1, 10):
        files.append(step, step_rows(step))
        assert whole(tmp_path) == step
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "rollouts_000001-000004.parquet",
        "rollouts_000005-000008.parquet",
        "rollouts_000009-000012.parquet",
    ]
    assert list(pd.read_parquet(tmp_path).columns) == SCHEMA.names


def test_readers_never_see_a_step_twice_or_half_and_kills_lose_nothing(tmp_path):
    """A process writes as fast as it can, is read all the while, and killed; another goes on."""
    first, seen = 1, 0
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert int(writer.stdout.readline()) == first
        while seen < first + 5:  # more than a chunk
            assert writer.poll() is None
            now = whole(tmp_path)
            assert now >= seen
            seen = now
        os.kill(writer.pid, signal.SIGKILL)
        finished = [int(line) for line in writer.communicate()[0].split()]
        assert whole(tmp_path) in (finished[-1], finished[-1] + 1)  # it may be killed before it can say so
        drop_steps_after(tmp_path, finished[-1])
        seen, first = finished[-1], finished[-1] + 1


@pytest.mark.parametrize("step", [0, 2, 4, 5, 9, 20])
def test_going_on_gives_the_same_bytes(tmp_path, step):
    for name in ("whole", "halves"):
        files = RolloutFiles(tmp_path / name, 4)
        for each in range(1, 11):
            files.append(each, step_rows(each))
    drop_steps_after(tmp_path / "halves", step)
    left = sorted((tmp_path / "halves").iterdir())
    assert (whole(tmp_path / "halves") if left else 0) == min(step, 10)
    files = RolloutFiles(tmp_path / "halves", 4)
    for each in range(step + 1, 11):
        files.append(each, step_rows(each))
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "halves" / path.name).read_bytes()


def test_going_on_with_other_chunks_keeps_every_step_once(tmp_path):
    files = RolloutFiles(tmp_path, 4)
    for step in range(1, 7):
        files.append(step, step_rows(step))
    drop_steps_after(tmp_path, 6)
    files = RolloutFiles(tmp_path, 10)
    for step in range(7, 13):
        files.append(step, step_rows(step))
    steps = pd.read_parquet(tmp_path).step
    assert sorted(steps) == [step for step in range(1, 13) for _ in range(3)]


def test_another_name_is_left_alone(tmp_path):
    (tmp_path / "rollouts_mine.parquet").write_text("mine")
    drop_steps_after(tmp_path, 0)
    assert (tmp_path / "rollouts_mine.parquet").read_text() == "mine"


def test_a_run_of_an_older_version_goes_on_in_the_same_files(tmp_path):
    """Before there were levels, files had no such column."""
    old = SCHEMA.remove(SCHEMA.get_field_index("level"))
    table = pa.Table.from_pylist([{"step": 1, **row} for row in step_rows(1)], old)
    pq.write_table(table, tmp_path / "rollouts_000001-000004.parquet")
    files = RolloutFiles(tmp_path, steps_per_file=4)
    files.append(2, [{**row, "level": 5} for row in step_rows(2)])
    assert whole(tmp_path) == 2
    assert list(pd.read_parquet(tmp_path).level.fillna(-1)) == [-1] * 3 + [5] * 3
