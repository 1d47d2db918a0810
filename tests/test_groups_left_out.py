"""A run with dynamic sampling: what was sampled and left out counts everywhere but in the update."""

from __future__ import annotations

import csv

import pandas as pd
import pytest
import torch

from rl_lightning.rollout import Sampling
from rl_lightning.scoring import WeightedReward
from tests.runs import run

STEPS = 4


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Two groups of four are wanted with variance, of six at most; by an exact answer alone few have any."""
    root = tmp_path_factory.mktemp("left_out")
    run(root, STEPS, evaluate=False, sampling=Sampling(4, 12, max_resample=3), reward=WeightedReward(format=0.0))
    return root


def metrics(root) -> list[dict[str, float]]:
    rows = csv.DictReader((root / "metrics.csv").open())
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def test_all_groups_are_in_the_rollouts_and_say_which_were_kept(sampled):
    rows = pd.read_parquet(sampled / "rollouts")
    groups = rows.drop_duplicates(["step", "group"]).groupby("step").kept
    assert list(groups.sum()) == [2] * STEPS
    assert groups.count().max() > 2  # or there is nothing to be seen here
    assert [row["groups/kept"] for row in metrics(sampled)] == list(groups.sum())
    assert [row["groups/sampled"] for row in metrics(sampled)] == list(groups.count())
    assert not rows[~rows.kept].advantage.any()
    assert rows[~rows.kept].logprob_mismatch.isna().all()
    for _, group in rows.groupby(["step", "group"]):
        assert group.kept.nunique() == 1
        assert bool(group.advantage.any()) == bool(group.kept.all() and group.reward.nunique() > 1)


def test_the_metrics_are_of_everything_that_was_sampled(sampled):
    rows = pd.read_parquet(sampled / "rollouts")
    for step, row in enumerate(metrics(sampled), 1):
        of_step = rows[rows.step == step]
        means = {"reward/mean": of_step.reward, "reward/exact": of_step.exact, "completion/tokens": of_step.tokens}
        assert {name: row[name] for name in means} == {name: pytest.approx(m.mean()) for name, m in means.items()}
        differ = of_step.groupby("group").reward.nunique() > 1
        assert row["groups/with_variance"] == pytest.approx(differ.mean())
        trained = of_step[of_step.logprob_mismatch.notna()].tokens.sum()
        assert row["policy/trained_tokens"] == trained
        assert row["groups/useful_tokens"] == pytest.approx(trained / of_step.tokens.sum())
        assert row["time/wasted"] == pytest.approx(row["time/sample"] * (1 - trained / of_step.tokens.sum()))
        assert row["time/sampled_tokens_per_second"] * row["time/sample"] == pytest.approx(of_step.tokens.sum())


def test_the_accuracy_by_task_is_of_all_groups_too(sampled):
    state = torch.load(sampled / f"checkpoint-{STEPS}" / "trainer.ckpt", weights_only=True)["PromptDataModule"]
    rows = pd.read_parquet(sampled / "rollouts")
    ((task, level, groups, _, long),) = state["record"]
    of_groups = rows.groupby(["step", "group"]).exact.mean()
    assert (task, level, groups) == ("chain_sum", None, len(of_groups))
    assert long == pytest.approx(of_groups.mean())
    assert state["extra_cursor"] == len(of_groups) - 2 * STEPS
