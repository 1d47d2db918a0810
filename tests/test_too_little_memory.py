"""Too little memory for the update, the rollout or the evaluation: less at once, and the same results up to rounding."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback

from rl_lightning.callbacks import FixedEval, fixed_eval
from rl_lightning.checkpointing.checkpoints import resolve_checkpoint
from rl_lightning.distributed import SingleProcess
from rl_lightning.memory.limits import Limit, MemoryLimits
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import Sampling
from rl_lightning.types import UserError
from tests.runs import adapters, run, same


def test_too_little_memory_for_the_update_halves_the_budget_and_changes_nothing(tmp_path, monkeypatch, caplog):
    run(tmp_path / "roomy", 2, evaluate=False, token_budget=512)
    log_probs = Policy.log_probs

    def scarce(self, batch, *args):
        if batch.input_ids.numel() > 70:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return log_probs(self, batch, *args)

    monkeypatch.setattr(Policy, "log_probs", scarce)
    _, module, _ = run(tmp_path / "scarce", 2, evaluate=False, token_budget=512)
    assert module.limits.token_budget.value == 64
    assert "model.token_budget is 64 for the next 50 steps; results change by rounding only" in caplog.text
    ours, theirs = adapters(tmp_path / "scarce", 2), adapters(tmp_path / "roomy", 2)
    for name in (
        name for name in theirs if "lora_B" in name
    ):  # which start at zero; Adam makes much of small gradients
        assert (ours[name] - theirs[name]).norm() < 0.01 * theirs[name].norm()
    rows = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("scarce", "roomy")]
    assert rows[0][0]["policy/trained_tokens"] == rows[1][0]["policy/trained_tokens"]


def test_too_little_memory_for_the_rollout_halves_its_rows_and_samples_the_same(tmp_path, monkeypatch):
    from rl_lightning.rollout import local_engine

    run(tmp_path / "roomy", 2, evaluate=False)
    sample_groups = local_engine.sample_groups

    def scarce(model, batch, sampling, *args, **kwargs):
        if sampling.max_rollout_rows > 3:
            sample_groups(model, batch, sampling, *args, **kwargs)  # all the work is done when memory is out
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample_groups(model, batch, sampling, *args, **kwargs)

    monkeypatch.setattr(local_engine, "sample_groups", scarce)
    _, module, _ = run(tmp_path / "scarce", 2, evaluate=False)
    assert module.limits.rollout_rows.value == 2
    a, b = (pd.read_parquet(tmp_path / name / "rollouts") for name in ("scarce", "roomy"))
    assert list(a.completion) == list(b.completion)


@pytest.fixture
def scarce(monkeypatch):
    """Memory for so many rows of evaluations and tokens of micro-batches, at which steps they are given; None: for all."""
    from rl_lightning.rollout import local_engine

    sample_groups, log_probs, most = local_engine.sample_groups, Policy.log_probs, {"rows": None, "tokens": None}

    def sample(model, batch, sampling, eos, decode, draws, *args):
        out = sample_groups(model, batch, sampling, eos, decode, draws, *args)
        if draws is None and most["rows"] is not None and sampling.max_rollout_rows > most["rows"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    def forward(self, batch, *args):
        if most["tokens"] is not None and batch.input_ids.numel() > most["tokens"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return log_probs(self, batch, *args)

    monkeypatch.setattr(local_engine, "sample_groups", sample)
    monkeypatch.setattr(Policy, "log_probs", forward)
    return most


def evaluation(root: Path, step: int) -> dict:
    return json.loads((root / "eval_results" / f"eval_step_{step}.json").read_text())


def test_an_evaluation_with_too_little_memory_is_made_again_with_fewer_rows_and_training_has_its_own(
    tmp_path, scarce, caplog
):
    many = {"sampling": Sampling(12, 12)}
    run(tmp_path / "roomy", 4, **many)
    scarce["rows"] = 3
    _, module, _ = run(tmp_path / "scarce", 4, **many)
    planned = evaluation(tmp_path / "roomy", 0)["ran_with"]["rows_at_once"]
    assert planned > 3
    assert module.limits.rollout_rows.value == module.limits.rollout_rows.most == 24
    fits = next(planned >> k for k in range(9) if planned >> k <= 3)
    assert [evaluation(tmp_path / "scarce", step)["ran_with"]["rows_at_once"] for step in (0, 2, 4)] == [fits] * 3
    assert evaluation(tmp_path / "scarce", 0)["rows"] == evaluation(tmp_path / "roomy", 0)["rows"]
    assert "fixed_eval.rows is" in caplog.text
    assert "round otherwise" not in caplog.text
    a, b = (pd.read_parquet(tmp_path / name / "rollouts") for name in ("scarce", "roomy"))
    assert list(a.completion) == list(b.completion)


def test_an_evaluation_whose_rows_change_midway_begins_again(monkeypatch):
    """Of two batches the second runs out of memory the first time: the first is evaluated anew, as the second was."""
    module = SimpleNamespace(limits=MemoryLimits.of(1000, 64, 40), collective=SingleProcess())
    limit = module.limits.eval_rows
    monkeypatch.setattr(fixed_eval, "conditions", lambda module: {"rows_at_once": limit.value})

    def share(self, trainer, pl_module):
        first = limit.value
        if first == 40:
            limit.halve()
        return [{"rows": first}, {"rows": limit.value}]

    monkeypatch.setattr(FixedEval, "_share_of_completions", share)
    assert FixedEval()._completions(None, module) == [{"rows": 20}, {"rows": 20}]


def test_an_evaluation_that_lowers_its_rows_in_a_later_step_says_so_and_a_resumed_run_keeps_them(
    tmp_path, scarce, caplog
):
    class Less(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            scarce["rows"] = 3 if trainer.global_step >= 2 else None

    many = {"sampling": Sampling(12, 12)}
    run(tmp_path / "whole", 6, callbacks=[Less()], **many)
    found = [evaluation(tmp_path / "whole", step) for step in (0, 2, 4, 6)]
    first, later = found[0]["ran_with"]["rows_at_once"], found[2]["ran_with"]["rows_at_once"]
    assert first > 3 >= later
    assert [each["ran_with"]["rows_at_once"] for each in found] == [first, first, later, later]
    said = {"step": 0, "what": [f"rows_at_once was {first} and is {later}"]}
    assert found[2]["rounds_otherwise"] == found[3]["rounds_otherwise"] == said
    assert (
        f"this evaluation and that of step 0 round otherwise, which may change single completions: {said['what'][0]}"
        in (caplog.text)
    )
    scarce["rows"] = None
    run(tmp_path / "parts", 4, callbacks=[Less()], **many)
    scarce["rows"] = None
    run(tmp_path / "parts", 6, str(resolve_checkpoint("last", tmp_path / "parts")), **many)
    same(tmp_path / "parts", tmp_path / "whole", 6)


def test_a_limit_that_was_lowered_rises_again_and_a_resumed_run_does_the_same(tmp_path, scarce, monkeypatch):
    class LessOnce(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            scarce["tokens"] = 45 if trainer.global_step == 1 else None

    settings = {"evaluate": False, "token_budget": 256, "callbacks": [LessOnce()]}
    monkeypatch.setattr(Limit.__init__, "__defaults__", tuple(2 if v == 50 else v for v in Limit.__init__.__defaults__))
    run(tmp_path / "whole", 6, **settings)
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").open()))
    assert [float(row["memory/token_budget"]) for row in rows] == [256, 64, 128, 128, 256, 256]
    assert {float(row["memory/max_rollout_rows"]) for row in rows} == {8.0}
    run(tmp_path / "parts", 2, **settings)
    _, module, _ = run(tmp_path / "parts", 6, str(resolve_checkpoint("last", tmp_path / "parts")), **settings)
    assert module.limits.token_budget.value == 256
    rows = list(csv.DictReader((tmp_path / "parts" / "metrics.csv").open()))
    assert [float(row["memory/token_budget"]) for row in rows] == [256, 64, 128, 128, 256, 256]
    same(tmp_path / "parts", tmp_path / "whole", 6)


def test_no_memory_at_all_is_one_line(tmp_path, monkeypatch):
    def none(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Policy, "log_probs", lambda self, *args: none() if self.training else None)
    with pytest.raises(UserError, match=r"out of memory even with model.token_budget=1"):
        run(tmp_path, 2, evaluate=False, policy=PolicyConfig(self_test=False))
