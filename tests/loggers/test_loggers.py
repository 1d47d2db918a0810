"""Each logger of the README really runs, without network: a run's metrics are read back from where the logger put them."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from rl_lightning.cli.main import main
from tests.conftest import QUICKSTART, ROOT

Metrics = dict[str, dict[int, float]]
"""Metric name to step to value, over all runs that a logger has kept."""

SMALL = {
    "model": {"policy": {"quantization": "none"}, "sampling": {"num_generations": 2, "max_new_tokens": 8}},
    "data": {"prompts_per_step": 2, "eval_num_samples": 1, "num_workers": 0},
    "fixed_eval": {"fixed_eval_steps": 1},
    "rollout_table": {"table_steps": 1},
}


@pytest.fixture
def fit(monkeypatch, tmp_path):
    """Train the quickstart, made small, with the README's line for a logger."""
    monkeypatch.chdir(tmp_path)

    def run(logger: str, *words: str) -> None:
        (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if f"class_path: {logger}" in line]
        Path("small.yaml").write_text(yaml.safe_dump({**SMALL, "trainer": yaml.safe_load(line)}))
        assert main(["fit", "--config", str(QUICKSTART), "--config", "small.yaml", *words]) == 0

    return run


def check(metrics: Metrics, steps: int) -> None:
    """The logger's metrics are those of the run's own files."""
    run = Path("outputs/quickstart")
    for step in range(steps + 1):
        evaluation = json.loads((run / "eval_results" / f"eval_step_{step}.json").read_text())
        assert metrics["eval/mean_tokens"][step] == pytest.approx(evaluation["overall"]["mean_tokens"])
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    rollouts = pd.read_parquet(run / "rollouts")
    for step in range(1, steps + 1):
        rows = rollouts[rollouts.step == step]
        assert metrics["completion/tokens"][step] == pytest.approx(rows.tokens.mean())
        assert metrics["reward/mean"][step] == pytest.approx(rows.reward.mean())
    assert set(metrics["completion/tokens"]) == set(range(1, steps + 1))


def check_tables(tables: list[list[dict]], steps: int) -> None:
    """A table per step, and its rows are rollouts of that step."""
    rollouts = pd.read_parquet("outputs/quickstart/rollouts")
    assert sorted(table[0]["step"] for table in tables) == list(range(1, steps + 1))
    for table in tables:
        rows = rollouts[rollouts.step == table[0]["step"]]
        by_why = {row["why"]: row for row in table}
        assert by_why["best"]["reward"] == pytest.approx(rows.reward.max())
        assert by_why["worst"]["reward"] == pytest.approx(rows.reward.min())
        assert by_why["longest"]["tokens"] == rows.tokens.max()
        assert all(row["completion"] in set(rows.completion) for row in table)


def test_tensorboard(fit):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit("TensorBoardLogger", "--trainer.max_steps=1")
    fit("TensorBoardLogger", "--trainer.max_steps=2", "--ckpt_path=last")
    metrics: Metrics = defaultdict(dict)
    for path in Path("outputs").rglob("events.out.tfevents.*"):
        events = accumulator.EventAccumulator(str(path)).Reload()
        for name in events.Tags()["scalars"]:
            metrics[name] |= {event.step: event.value for event in events.Scalars(name)}
    check(metrics, steps=2)


def test_wandb_offline(fit, monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb_home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_MODE", "offline")  # wandb's own switch, for Lightning's `offline` refuses `log_model`
    for words in (["--trainer.max_steps=1"], ["--trainer.max_steps=2", "--ckpt_path=last"]):
        fit(
            "WandbLogger",
            "--trainer.logger.init_args.offline=false",
            "--trainer.logger.init_args.log_model=true",
            *words,
        )
        wandb.finish()
        wandb.teardown()  # as at the end of the process: the file is whole only when wandb's own process has ended
    metrics: Metrics = defaultdict(dict)
    for path in Path("outputs").rglob("*.wandb"):
        for row in history(path):
            for name, value in row.items():
                metrics[name][row["trainer/global_step"]] = value
    check(metrics, steps=2)
    tables = [json.loads(path.read_text()) for path in Path("outputs").rglob("files/media/table/rollouts_*.table.json")]
    check_tables([[dict(zip(table["columns"], row, strict=True)) for row in table["data"]] for table in tables], 2)
    artifacts = [record.artifact for path in Path("outputs").rglob("*.wandb") for record in records(path)]
    logged = {alias: each for each in artifacts for alias in each.aliases if alias.startswith("step-")}
    assert set(logged) == {"step-1", "step-2"}
    for step in (1, 2):
        names = {path.name for path in Path(f"outputs/quickstart/checkpoint-{step}").iterdir()}
        assert {entry.path for entry in logged[f"step-{step}"].manifest.contents} == names


def history(path: Path) -> Iterator[dict[str, float]]:
    """The rows of metrics in wandb's own file."""
    for record in records(path):
        if items := record.history.item:
            yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def records(path: Path) -> Iterator[Any]:
    """What is in wandb's own file: protobufs in LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    block, head, whole, last = 32768, struct.Struct("<IHB"), 1, 4
    data, at, message = path.read_bytes(), 7, b""
    while at + head.size <= len(data):
        if block - at % block < head.size:  # a record's head is not divided: the block's rest is empty
            at += block - at % block
            continue
        _checksum, length, kind = head.unpack_from(data, at)
        message += data[at + head.size : at + head.size + length]
        at += head.size + length
        if kind in (whole, last):
            yield Record.FromString(message)
            message = b""


def test_mlflow(fit):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny cannot open the README's database")
    from mlflow import MlflowClient

    fit("MLFlowLogger", "--trainer.max_steps=1")
    fit("MLFlowLogger", "--trainer.max_steps=2", "--ckpt_path=last")
    client = MlflowClient("sqlite:///outputs/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "lightning_logs"]
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    metrics: Metrics = defaultdict(dict)
    for run in runs:
        for name in run.data.metrics:
            metrics[name] |= {each.step: each.value for each in client.get_metric_history(run.info.run_id, name)}
    check(metrics, steps=2)
    paths = [Path(client.download_artifacts(run.info.run_id, "rollouts.json")) for run in runs]
    tables = [json.loads(path.read_text()) for path in paths]
    check_tables([[dict(zip(table["columns"], row, strict=True)) for row in table["data"]] for table in tables], 2)


def test_a_missing_extra_gets_one_line(fit, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", False)
    (tmp_path / "logger.yaml").write_text("trainer: {logger: {class_path: MLFlowLogger}}")
    assert main(["fit", "--config", str(QUICKSTART), "--config", "logger.yaml"]) == 2
    assert [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: a package is missing: ")]
    assert not (tmp_path / "outputs").exists()
