"""A rollout engine of one's own, put in by the public interface."""

from __future__ import annotations

import torch

from rl_lightning.policy import pack
from tests.extension_points.replay import ReplayEngine
from tests.extension_points.training import adapters, data, fit, module


def log_prob(policy, rollout, text: str) -> float:
    """Of all rows with that text, by the trainer."""
    rows = torch.tensor([n for n, t in enumerate(rollout.texts) if t == text])
    with torch.no_grad():
        return sum(float(policy.log_probs(micro, 1.0)[0].sum()) for micro in pack(rollout, rows, 10**6))


def test_a_step_is_trained_on_what_the_engine_replays(tmp_path):
    engine = ReplayEngine(["<answer>7</answer>", "<answer>12345678</answer>"])
    trained = module(engine=engine)
    records = fit(tmp_path, trained, data(), max_steps=3)
    assert engine.started == 1
    assert engine.closed
    assert engine.synced == 4  # the weights of the moment, before each step's rollout, and before the reward is tried
    first, last = records[0].rollouts, records[-1].rollouts
    assert set(first.rollout.texts) == set(engine.texts)
    assert first.rewards.tolist() == [[len(text) / 10 for text in engine.texts] * 2] * 2
    assert all(score.answer in ("7", "12345678") for score in first.scores)  # rows were handed over and verified
    assert trained.plan.phases["rollout"]["cache"] == 1e6  # what the engine says of its memory is what is planned for
    before = module(engine=engine)
    fit(tmp_path, before, data(), max_steps=0)
    long = engine.texts[1]
    assert log_prob(trained.policy, last.rollout, long) > log_prob(before.policy, last.rollout, long) + 1


def test_an_evaluation_is_the_engines_too(tmp_path):
    engine = ReplayEngine(["<answer>1</answer>"])
    trained, source = module(engine=engine), data()
    fit(tmp_path, trained, source, max_steps=1)
    (batch,) = source.eval_batches()
    trained.setup("validate")
    try:
        evaluated = trained.validation_step(batch, 0)
    finally:
        trained.teardown("validate")
    assert evaluated.rollout.texts == ("<answer>1</answer>",) * 2
    assert len(adapters(trained)) == 56
