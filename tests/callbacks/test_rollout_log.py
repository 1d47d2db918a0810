"""A row of the rollouts, worked out by hand."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from rl_lightning.callbacks.rollout_log import rollout_rows
from rl_lightning.loggers.rollout_files import SCHEMA
from rl_lightning.types import Problem, PromptBatch, Rollout, RolloutBatch, Score, StepRecord, TrainerLogprobs
from tests.runs import run

NAN = float("nan")


def record() -> StepRecord:
    """Two prompts, two completions each; the second group has no variance, was not kept, and was not forwarded."""
    problems = (Problem("1+1?", expected="2", task="sums", index=6), Problem("Which?", task="words", index=7))
    batch = PromptBatch(problems, torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 3]), cursor=8)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    sampled = torch.tensor([[-1.0, -3.0, 0.0], [-1.0, -1.0, -4.0], [-0.5, 0.0, 0.0], [-2.0, -4.0, 0.0]])
    rollout = Rollout(
        batch.prompt_ids,
        batch.prompt_lengths,
        torch.ones(4, 3, dtype=torch.int64),
        mask,
        sampled,
        torch.tensor([True, False, True, True]),
        ("a", "b", "c", "d"),
    )
    scores = (
        Score(1.0, 1.0, True, "2"),
        Score(0.0, 0.25, False, None, "no_answer"),
        *[Score(0.0, 0.0, False, "x")] * 2,
    )
    logps = torch.tensor([[-1.5, -3.0, NAN], [-1.0, -1.0, -1.0], [NAN] * 3, [NAN] * 3])
    entropies = torch.tensor([[0.5, 1.0, NAN], [0.1, 0.2, 0.6], [NAN] * 3, [NAN] * 3])
    rewards, advantages = torch.tensor([[1.1, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    rollouts = RolloutBatch(batch, rollout, scores, rewards[..., None], rewards, torch.tensor([True, False]))
    return StepRecord(8, rollouts, advantages, mask.float(), TrainerLogprobs(logps, entropies), {})


def test_every_column_by_hand():
    rows = pd.DataFrame(rollout_rows(record()))
    assert ["step", *rows.columns] == SCHEMA.names
    assert list(rows.task) == ["sums", "sums", "words", "words"]
    assert list(rows["index"]) == [6, 6, 7, 7]
    assert list(rows.group) == [0, 0, 1, 1]
    assert list(rows.prompt) == ["1+1?", "1+1?", "Which?", "Which?"]
    assert list(rows.completion) == ["a", "b", "c", "d"]
    assert [row["expected"] for row in rollout_rows(record())] == ["2", "2", None, None]
    assert [row["answer"] for row in rollout_rows(record())] == ["2", None, "x", "x"]
    assert list(rows.exact) == [1.0, 0.0, 0.0, 0.0]
    assert list(rows.partial) == [1.0, 0.25, 0.0, 0.0]
    assert list(rows.format) == [True, False, False, False]
    assert [row["failure"] for row in rollout_rows(record())] == [None, "no_answer", None, None]
    assert list(rows.reward) == pytest.approx([1.1, 0, 0, 0])
    assert list(rows.advantage) == [1, -1, 0, 0]
    assert list(rows.kept) == [True, True, False, False]
    assert list(rows.tokens) == [2, 3, 1, 2]
    assert list(rows.finish) == ["end", "length", "end", "end"]


def test_the_trainers_view_where_it_has_one_and_the_samplers_elsewhere():
    rows = rollout_rows(record())
    assert [row["mean_logprob"] for row in rows] == pytest.approx([-2, -2, -0.5, -3])
    assert [row["logprob_mismatch"] for row in rows] == [pytest.approx(0.25), pytest.approx(1.0), None, None]
    assert [row["entropy"] for row in rows] == pytest.approx([0.75, 0.3, 0.5, 3])


def test_of_a_real_run_the_mismatch_is_the_metrics_own(tmp_path):
    """float32 on both sides: the sampler's log-probs are the trainer's, but for rounding, and their mean is the metric."""
    _, module, _ = run(tmp_path, 1, evaluate=False)
    rows = pd.read_parquet(tmp_path / "rollouts")
    forwarded = rows[rows.logprob_mismatch.notna()]
    assert len(forwarded)
    for column, metric in (("logprob_mismatch", "policy/logprob_mismatch"), ("entropy", "policy/entropy")):
        mean = (forwarded[column] * forwarded.tokens).sum() / forwarded.tokens.sum()
        assert mean == pytest.approx(module.metrics[metric], rel=1e-3)
