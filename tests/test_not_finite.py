"""Runs whose model gives logits or gradients that are no numbers now and then, or always."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch import Callback

from rl_lightning.checkpointing.checkpoints import checkpoints, resolve_checkpoint
from rl_lightning.cli.main import main
from rl_lightning.objective import Objective
from rl_lightning.policy import PolicyConfig
from rl_lightning.rollout import Sampling, decode_state
from rl_lightning.types import LossOutput, UserError
from tests.runs import adapters, run, same
from tests.test_cards_run import machine_with_cards
from tests.test_module_steps import make_module
from tests.training.constructed import ConstructedEngine, ConstructedPrompts, prompt_batch, rollout_batch

NAN = float("nan")
UNTESTED = PolicyConfig(self_test=False)
"""The self-test samples too, and refuses a model that gives NaN at once."""


@pytest.fixture
def broken_draws(monkeypatch):
    """A row breaks where the number that decides its token is below this, so a resumed run breaks alike."""
    share, choose = [0.0], decode_state.choose

    def broken(logits, sampling, uniforms, out):
        if uniforms is not None:
            logits = logits.masked_fill((uniforms < share[0])[:, None], NAN)
        return choose(logits, sampling, uniforms, out)

    monkeypatch.setattr(decode_state, "choose", broken)
    return share


def broken_groups(*rows: int, numbers=(1, 2, 3)):
    """Groups of two with variance, of which these rows broke."""
    rollouts = rollout_batch(numbers, [True] * len(numbers))
    logps = rollouts.rollout.sampling_logps.clone()
    logps[list(rows), -1] = NAN
    rollout = replace(rollouts.rollout, sampling_logps=logps, finished=~logps.isnan().any(dim=1))
    return replace(rollouts, rollout=rollout, kept=rollout.finite_groups)


class BreakingEngine(ConstructedEngine):
    """One whose completions of some problems break, the second of each."""

    def __init__(self, with_variance, breaks) -> None:
        super().__init__(with_variance)
        self.breaks = breaks

    def generate(self, prompts, sampling, draws, on_finished=None):
        rollout = super().generate(prompts, sampling, draws, on_finished)
        logps = rollout.sampling_logps.clone()
        for group, problem in enumerate(prompts.problems):
            if problem.index in self.breaks:
                logps[2 * group + 1, -1] = NAN
        return replace(rollout, sampling_logps=logps, finished=~logps.isnan().any(dim=1))


@pytest.mark.parametrize(
    "objective",
    [
        {},
        {"loss_type": "dapo"},
        {"loss_type": "dr_grpo", "scale_advantages": "none"},
        {"scale_advantages": "batch", "baseline": "batch"},
        {"beta": 0.1, "entropy_bonus": 0.1},
    ],
)
def test_the_update_is_that_of_the_other_groups_alone(objective):
    """To the last bit: neither a baseline, nor a deviation, nor a mean over the tokens counts a group that broke."""
    module, sampled = make_module(**objective), broken_groups(3, numbers=(1, 2, 3))
    sampled.reward_components[0, 1, 0] = 0.25
    alone = rollout_batch([1, 3], [True, True])
    alone.reward_components[0, 1, 0] = 0.25
    advantages, weights = module.compute_advantages(sampled)
    expected_advantages, expected_weights = module.compute_advantages(alone)
    assert torch.equal(advantages[[0, 2]], expected_advantages)
    assert torch.equal(weights[[0, 1, 4, 5]], expected_weights)
    assert not advantages[1].any()
    assert not weights[2:4].any()
    rows = module.trainable_rows(sampled.rollout, advantages, weights)
    assert not {2, 3} & set(rows.tolist())


def test_a_completion_that_broke_is_wrong_and_its_group_neither_kept_nor_counted():
    module = make_module()
    module.engine = BreakingEngine({0, 1, 2}, breaks={1})
    found = module.sample_and_score(prompt_batch([0, 1, 2]))
    assert [score.failure for score in found.scores] == [None, None, None, "not_finite_logits", None, None]
    assert found.scores[3].answer is None
    assert found.kept.tolist() == [True, False, True]
    assert module.has_variance(found).tolist() == [True, False, True]
    assert [problem.index for problem, _ in found.accuracies] == [0, 2]


def test_dynamic_sampling_replaces_a_group_that_broke():
    module = make_module()
    module.sampling, module.engine = (
        Sampling(2, 8, max_resample=3),
        BreakingEngine({0, 1, 2, 100, 101}, breaks={1, 100}),
    )
    module.prompt_source = ConstructedPrompts()
    module.policy = None
    module._device = torch.device("cpu")
    found = module.collect_rollouts(prompt_batch([0, 1, 2]))
    numbers = [problem.index for problem in found.prompts.problems]
    assert [number for number, kept in zip(numbers, found.kept.tolist(), strict=True) if kept] == [0, 2, 101]


def test_a_supervised_step_trains_on_the_right_samples_that_did_not_break():
    module = make_module()
    module.supervised = True
    advantages, weights = module.compute_advantages(broken_groups(0))
    assert advantages.tolist() == [[0, 0], [1, 0], [1, 0]]
    assert weights.any(dim=1).tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize("settings", [{}, {"objective": Objective(beta=0.1, num_iterations=2, top_entropy=0.5)}])
def test_completions_that_break_are_counted_and_named_and_the_run_resumes_as_ever(
    tmp_path, broken_draws, caplog, settings
):
    broken_draws[0] = 0.02
    run(tmp_path / "whole", 6, evaluate=False, policy=UNTESTED, **settings)
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").open()))
    shares = [float(row["completion/not_finite"]) for row in rows]
    assert 0 < sum(shares) < len(shares)
    log = pd.read_parquet(tmp_path / "whole" / "rollouts")
    broke = log[log.finish == "not_finite"]
    assert len(broke) == round(8 * sum(shares))
    assert (broke.failure == "not_finite_logits").all()
    assert (broke.advantage == 0).all()
    assert broke.mean_logprob.isna().all()
    assert not broke.exact.any()
    groups = log.merge(broke[["step", "group"]].drop_duplicates())
    assert (groups.advantage == 0).all()
    assert (log.advantage != 0).any()
    step = int(broke.step.iloc[0])
    count = int((broke.step == step).sum())
    first = step - settings.get("objective", Objective()).num_iterations + 1
    assert f"step {first}: {count} of 8 completions ended because the model's logits were not finite" in caplog.text
    assert f"(chain_sum {count})" in caplog.text
    assert all(t.isfinite().all() for t in adapters(tmp_path / "whole", 6).values())

    settings = {"evaluate": False, "policy": UNTESTED, **settings}
    run(tmp_path / "parts", 4, **settings)
    run(tmp_path / "parts", 6, str(resolve_checkpoint("last", tmp_path / "parts")), **settings)
    same(tmp_path / "parts", tmp_path / "whole", 6)


class BreakFrom(Callback):
    """All rows break from a step on."""

    def __init__(self, share: list[float], step: int) -> None:
        self.share, self.step = share, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.share[0] = 2.0 if trainer.global_step >= self.step else 0.0


def test_steps_of_nothing_else_are_skipped_updates_and_at_last_end_the_run_which_can_be_resumed(tmp_path, broken_draws):
    ends = (
        r"the logits of every group were not a finite number in 3 updates in a row; the last batch is in .*not_finite"
    )
    with pytest.raises(UserError, match=ends):
        run(tmp_path / "bad", 6, evaluate=False, callbacks=[BreakFrom(broken_draws, 2)])
    (file,) = (tmp_path / "bad").glob("not_finite_step_5.pt")
    kept = torch.load(file, weights_only=True)
    assert kept["sampling_logps"].isnan().any(dim=1).all()
    rows = list(csv.DictReader((tmp_path / "bad" / "metrics.csv").open()))
    assert [float(row["policy/skipped_updates"]) for row in rows] == [0, 0, 1, 1]
    assert [p.name for p in checkpoints(tmp_path / "bad")] == ["checkpoint-2", "checkpoint-4"]
    before, after = adapters(tmp_path / "bad", 2), adapters(tmp_path / "bad", 4)
    assert all(torch.equal(before[name], after[name]) for name in before)  # not one bit is changed

    broken_draws[0] = 0.0
    _, module, _ = run(tmp_path / "bad", 6, str(resolve_checkpoint("last", tmp_path / "bad")), evaluate=False)
    assert module.not_finite_in_a_row == 0
    assert any(not torch.equal(t, after[name]) for name, t in adapters(tmp_path / "bad", 6).items())


def test_several_cards_break_as_one_does(tmp_path, broken_draws, monkeypatch):
    broken_draws[0] = 0.02
    policy = {"quantization": "none", "gradient_checkpointing": "off", "self_test": False}
    settings = {"evaluate": False, "sampling": Sampling(4, 12, max_rollout_rows=3)}
    run(tmp_path / "one", 2, policy=PolicyConfig("tiny", **policy), **settings)
    with machine_with_cards(monkeypatch):
        run(tmp_path / "two", 2, policy=PolicyConfig("tiny", devices_per_replica=2, **policy), **settings)
    assert (pd.read_parquet(tmp_path / "one" / "rollouts").finish == "not_finite").any()
    same(tmp_path / "two", tmp_path / "one", 2)


def test_chat_says_so_and_gives_no_marks(monkeypatch, capsys, tmp_path):
    choose = decode_state.choose
    monkeypatch.setattr(decode_state, "choose", lambda logits, *args: choose(logits.fill_(NAN), *args))
    config = tmp_path / "untested.yaml"
    config.write_text(yaml.safe_dump({"model": {"policy": {"self_test": False}}}))
    assert main(["chat", "--config", str(config), "--task", "chain_sum"]) == 0
    out = capsys.readouterr().out
    assert "tokens  1, ended because logits were not finite" in out
    assert "truncated" not in out
    assert "right" not in out.splitlines()[-1]


@pytest.mark.parametrize("samples", [None, 4])
def test_an_evaluations_problem_counts_as_wrong_and_is_named(tmp_path, monkeypatch, caplog, samples):
    choose = decode_state.choose

    def broken(logits, *args):
        return choose(logits.fill_(NAN), *args)

    monkeypatch.setattr(decode_state, "choose", broken)
    run(tmp_path, 1, samples=samples, policy=UNTESTED)
    found = json.loads((tmp_path / "eval_results" / "eval_step_0.json").read_text())
    assert found["not_finite"] == [{"task": row["task"], "index": row["index"]} for row in found["rows"]]
    assert found["overall"]["accuracy"] == 0
    assert all(row["not_finite"] and not row["truncated"] for row in found["rows"])
    named = ", ".join(f"{row['task']} {row['index']}" for row in found["rows"])
    assert (
        f"evaluation problems count as wrong, because the model's logits were not finite numbers: {named}"
        in caplog.text
    )


def test_a_gradient_that_is_not_finite_is_skipped_counted_and_at_last_ends_the_run(tmp_path, monkeypatch):
    from rl_lightning import module as grpo

    good, bad_steps, step = grpo.policy_loss, {2}, 0

    def loss(*args):
        nonlocal step
        out = good(*args)
        step += 1
        return LossOutput(out.loss * float("nan"), out.metrics) if step in bad_steps else out

    monkeypatch.setattr(grpo, "policy_loss", loss)
    run(tmp_path / "one", 4, evaluate=False)
    rows = list(csv.DictReader((tmp_path / "one" / "metrics.csv").open()))
    assert [float(row["policy/skipped_updates"]) for row in rows] == [0, 1, 0, 0]
    assert all(t.isfinite().all() for t in adapters(tmp_path / "one", 4).values())

    step, bad_steps = 0, {3, 4, 5}
    with pytest.raises(
        UserError, match=r"not a finite number in 3 updates in a row; the last batch is in .*not_finite"
    ):
        run(tmp_path / "three", 8, evaluate=False)
    (file,) = (tmp_path / "three").glob("not_finite_step_*.pt")
    kept = torch.load(file, weights_only=True)
    assert len(kept["completions"]) == 8
    assert kept["completion_ids"].shape == kept["mask"].shape
    assert [p.name for p in checkpoints(tmp_path / "three")] == ["checkpoint-2", "checkpoint-4"]
