"""The order of the callbacks in the trainer's list does not matter."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from rl_lightning import callbacks
from rl_lightning.callbacks import (
    AdapterCheckpoint,
    CurriculumLog,
    Diagnostics,
    FixedEval,
    GroupVariance,
    LearningCurve,
    LivePanel,
    MemoryPlan,
    PushToHub,
    RolloutLog,
    RolloutTable,
    RunDirectory,
    StopAtSignal,
)
from rl_lightning.data import PromptDataModule
from rl_lightning.loggers.metrics_csv import MetricsCSV
from rl_lightning.module import GRPOModule
from rl_lightning.rollout import Sampling
from tests.runs import SUMS, LengthReward

DEPENDS_ON_TIME = ("time/", "memory/", "seconds", "share_of_run")


def in_the_order_of_the_command_line(fixed_eval_steps: int) -> list[Callback]:
    """With settings by which all of them have something to do in two steps."""
    made = [
        StopAtSignal(),
        MemoryPlan(),
        GroupVariance(),
        CurriculumLog(),
        LivePanel(plain_seconds=0),
        RolloutLog(),
        RolloutTable(table_steps=1),
        FixedEval(fixed_eval_steps),
        Diagnostics(window=2),
        LearningCurve(),
        RunDirectory(),
        AdapterCheckpoint(save_steps=1),
        PushToHub(),
    ]
    assert {type(callback).__name__ for callback in made} == set(callbacks.__all__)
    return made


def fit(root: Path, order: list[Callback]) -> None:
    """Two steps that hardly learn: short completions and a rate that moves nothing."""
    seed_everything(0)
    module = GRPOModule(reward=LengthReward(), learning_rate=1e-12, sampling=Sampling(4, 3))
    data = PromptDataModule(SUMS, prompts_per_step=2, system_prompt="", num_workers=0, eval_num_samples=5)
    trainer = Trainer(
        default_root_dir=root,
        accelerator="cpu",
        max_steps=2,
        max_epochs=-1,
        log_every_n_steps=1,
        logger=MetricsCSV(str(root)),
        enable_model_summary=False,
        callbacks=order,
    )
    trainer.fit(module, data)


def timeless(found: Any) -> Any:
    """Without what is different in every run."""
    if isinstance(found, dict):
        return {name: timeless(value) for name, value in found.items() if not name.startswith(DEPENDS_ON_TIME)}
    return [timeless(each) for each in found] if isinstance(found, list) else found


def left_by(root: Path) -> dict[str, Any]:
    """What the callbacks have left: names of all files, and what is in those that are read by people and by programs."""
    with (root / "metrics.csv").open() as file:
        metrics = csv.DictReader(file)
        rows, columns = timeless(list(metrics)), metrics.fieldnames
    checkpoint = torch.load(root / "checkpoint-2" / "trainer.ckpt", weights_only=True)
    results = {path.name: timeless(json.loads(path.read_text())) for path in root.glob("eval_results/*.json")}
    return {
        "files": sorted(str(path.relative_to(root)) for path in root.rglob("*")),
        "columns": columns,
        "metrics": rows,
        "evaluations": results,
        "train_results": timeless(json.loads((root / "train_results.json").read_text())),
        "warnings": (root / "warnings.jsonl").read_text(),
        "diagnostics": checkpoint["callbacks"]["Diagnostics"],
        "rollouts": (root / "rollouts" / "rollouts_000001-000020.parquet").read_bytes(),
        "picture": (root / "learning_curve.png").read_bytes()[:8],
    }


@pytest.mark.parametrize(
    ("fixed_eval_steps", "evaluated"), [(1, [0, 1, 2]), (5, [0, 2])], ids=["every step", "only at the end"]
)
def test_callbacks_leave_the_same_in_reverse_order(tmp_path, capsys, fixed_eval_steps, evaluated):
    printed = []
    for name in ("forwards", "backwards"):
        order = in_the_order_of_the_command_line(fixed_eval_steps)
        fit(tmp_path / name, order if name == "forwards" else order[::-1])
        lines = [line.partition("  tokens/s")[0] for line in capsys.readouterr().out.splitlines()]
        printed.append([line for line in lines if line.startswith(("step 1", "step 2"))])
    forwards, backwards = left_by(tmp_path / "forwards"), left_by(tmp_path / "backwards")
    for what in forwards:
        assert forwards[what] == backwards[what], what
    assert forwards["train_results"]["eval"]["step"] == 2
    assert {f"eval_step_{step}.json" for step in evaluated} | {"suite.json"} == set(forwards["evaluations"])
    seen = [evaluation["step"] for evaluation in forwards["diagnostics"]["history"]["evaluations"]]
    assert seen == ([1, 2] if fixed_eval_steps == 1 else [0])
    assert {"truncated", "rate_without_effect"} <= {
        json.loads(line)["name"] for line in forwards["warnings"].splitlines()
    }
    assert {"groups/with_variance", "policy/moved_rms", "memory/peak_gb", "eval/accuracy"} <= set(forwards["columns"])
    assert forwards["picture"] == b"\x89PNG\r\n\x1a\n"
    # A line of the panel shows what was known before the step's own evaluation, which follows it.
    progress = [[line for line in lines if line.startswith(("step 1/", "step 2/"))] for lines in printed]
    assert progress[0] == progress[1]
    assert len(progress[0]) == 2
