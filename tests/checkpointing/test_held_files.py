"""A file that another program holds open costs nothing: what belongs there waits beside it."""

from __future__ import annotations

import csv

import pandas as pd
import pytest

from rl_lightning.checkpointing.atomic_files import newest, place_left, place_waiting, write_atomically
from rl_lightning.checkpointing.checkpoints import checkpoints
from rl_lightning.loggers.metrics_csv import MetricsCSV
from rl_lightning.report.run_files import Run
from tests.checkpointing.held_files import HeldFiles, held
from tests.runs import adapters, run, same

__all__ = ["held"]  # the fixture


def test_the_content_waits_beside_and_takes_its_place_when_it_can(tmp_path, held: HeldFiles, caplog):
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    write_atomically(path, "one")
    held.add(path)
    write_atomically(path, "two")
    write_atomically(path, "three")
    assert path.read_text() == "one"
    assert newest(path).read_text() == "three"
    (line,) = caplog.messages
    assert line.startswith(f"{path}: another program holds it open")
    held.clear()
    write_atomically(other, "x")
    assert path.read_text() == "three"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_what_waits_at_the_end_of_a_process_is_placed_then_or_by_the_next(tmp_path, held: HeldFiles):
    path = tmp_path / "rollouts" / "a.parquet"
    write_atomically(path, "one")
    held.add(path)
    write_atomically(path, "two")
    place_waiting()  # what runs at exit
    assert path.read_text() == "one"
    held.clear()
    place_left(tmp_path)
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["a.parquet"]


def test_a_directory_that_cannot_be_written_is_an_error_as_before(tmp_path, held: HeldFiles):
    held.add(tmp_path / "a.txt")  # which is not there
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "a.txt", "one")
    assert not list(tmp_path.iterdir())


def test_a_spreadsheet_that_shows_the_metrics_costs_no_row(tmp_path, held: HeldFiles):
    logger = MetricsCSV(str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=1)
    held.add(logger.path)
    logger.log_metrics({"a": 2.0}, step=2)
    logger.log_metrics({"a": 3.0}, step=3)
    logger.log_metrics({"a": 4.0, "b": 1.0}, step=4)
    assert len(logger.path.read_text().splitlines()) == 2
    assert Run(tmp_path, "run").metrics["a"] == ([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])
    held.clear()
    logger.log_metrics({"a": 5.0}, step=5)
    rows = list(csv.DictReader(logger.path.open()))
    assert [(row["step"], row["a"], row["b"]) for row in rows] == [
        *((str(step), f"{step}.0", "") for step in (1, 2, 3)),
        ("4", "4.0", "1.0"),
        ("5", "5.0", ""),
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_run_whose_files_are_open_elsewhere_ends_as_any_other_and_resumes(tmp_path, held: HeldFiles):
    """Metrics, rollouts and an old checkpoint are held from step 2 on; the run is resumed while they still are."""
    run(tmp_path / "whole", 6, evaluate=False)
    root = tmp_path / "held"
    run(root, 2, evaluate=False)
    parquet = root / "rollouts" / "rollouts_000001-000020.parquet"
    held.update({root / "metrics.csv", parquet, root / "checkpoint-2" / "adapter_model.safetensors"})
    run(root, 4, ckpt_path=str(root / "checkpoint-2" / "trainer.ckpt"), evaluate=False)
    assert set(pd.read_parquet(root / "rollouts").step) == {1, 2}  # the directory reads as one, without what waits
    run(root, 6, ckpt_path=str(root / "checkpoint-4" / "trainer.ckpt"), evaluate=False)
    assert [p.name for p in checkpoints(root)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    held.clear()
    place_waiting()
    same(root, tmp_path / "whole", 6)
    assert set(pd.read_parquet(root / "rollouts").step) == set(range(1, 7))
    assert adapters(root, 6).keys() == adapters(tmp_path / "whole", 6).keys()
