"""Whole runs of a few steps: what evaluations sample and cost, steps without reward variance, and which step is the last."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from rl_lightning.callbacks import fixed_eval
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.scoring import Reward
from tests.runs import adapters, run


def test_what_evaluations_cost_is_their_share_of_the_runs_seconds(tmp_path, monkeypatch):
    """By a clock on which a training step takes nine seconds and an evaluation three."""
    now = 0

    def taking(seconds, method):
        def slow(self, *args):
            nonlocal now
            now += seconds
            return method(self, *args)

        return slow

    monkeypatch.setattr(fixed_eval, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(GRPOModule, "training_step", taking(9, GRPOModule.training_step))
    monkeypatch.setattr(GRPOModule, "validation_step", taking(3, GRPOModule.validation_step))
    run(tmp_path, 2)
    first, last = (json.loads((tmp_path / "eval_results" / f"eval_step_{n}.json").read_text()) for n in (0, 2))
    assert (first["seconds"], first["share_of_run"]) == (3, 1)
    assert (last["seconds"], last["share_of_run"]) == (3, 6 / 24)


def test_samples_of_a_problem(tmp_path):
    """Three a problem: the row has their means, and another suite beside it would draw the same."""
    run(tmp_path, 2, samples=3)
    report = json.loads((tmp_path / "eval_results" / "eval_step_2.json").read_text())
    assert report["samples"] == {"samples": 3, "temperature": 1.0}
    assert set(report["overall"]["pass_at_k"]) == {"1", "2", "3"}
    assert report["overall"]["pass_at_k"]["1"] == pytest.approx(report["overall"]["accuracy"])
    assert report["overall"]["pass_at_k"]["3"] >= report["overall"]["pass_at_k"]["2"]
    for row in report["rows"]:
        assert len(row["samples"]) == 3
        assert row["exact"] == sum(sample["exact"] for sample in row["samples"]) / 3
    assert len({sample["completion"] for row in report["rows"] for sample in row["samples"]}) > 1


def test_steps_without_variance_leave_the_weights_and_advance_the_clock(tmp_path):
    class Same(Reward):
        def __call__(self, problem, completion, score):
            return 1.0

    trainer, _, data = run(tmp_path, 2, reward=Same(), evaluate=False)
    assert (trainer.global_step, data.cursor) == (2, 4)
    assert all(tensor.abs().max() == 0 for name, tensor in adapters(tmp_path, 2).items() if "lora_B" in name)


def test_lightnings_own_callbacks_can_watch_a_steps_metrics_at_its_end(tmp_path):
    names = "reward/mean", "memory/peak_gb"  # the module's own, and what a callback adds
    bests = [ModelCheckpoint(tmp_path / name, monitor=name, every_n_train_steps=1, save_top_k=3) for name in names]
    run(tmp_path, 3, evaluate=False, callbacks=bests)
    logged = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    for name, best in zip(names, bests, strict=True):
        kept = sorted(map(float, best.best_k_models.values()))
        assert kept == pytest.approx(sorted(float(row[name]) for row in logged))


def test_max_steps_counts_updates_and_is_not_overrun(tmp_path):
    """Three updates per rollout and five steps: the second rollout's last update is left out."""
    trainer, _, data = run(tmp_path, 5, objective=Objective(num_iterations=3, beta=0.01))
    assert (trainer.global_step, data.cursor) == (5, 4)
    rows = [row for row in csv.DictReader((tmp_path / "metrics.csv").open()) if row["reward/mean"]]
    assert float(rows[-1]["policy/kl"]) > 0  # later updates have left the base
