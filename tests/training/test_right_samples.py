"""Supervised steps on the policy's own right samples: what is chosen, the gradient, and whole runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from rl_lightning.objective import CISPO, GSPO, Objective
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import Sampling
from rl_lightning.training import StepCallback
from rl_lightning.training.metrics import StepMeter
from rl_lightning.training.right_samples import after_prompts, right_samples
from rl_lightning.types import RolloutBatch, Score, TrainerLogprobs, UserError
from tests.conftest import generate, shake
from tests.runs import run, same
from tests.test_module import SAMPLING, assert_same, make_module

EXAMPLES = {"examples": 2, "examples_for": "sft_steps"}
CHOSEN = [(n % 3 == 0, n % 2 == 0) for n in range(24)]
"""Right, well-formed; both are six of them."""


@pytest.fixture(scope="module")
def own_policy() -> Policy:
    policy = Policy(PolicyConfig("tiny", quantization="none"), torch.device("cpu"))
    shake(policy)
    return policy


@pytest.fixture
def rollouts(own_policy, batch) -> RolloutBatch:
    rollout = generate(own_policy, batch, SAMPLING)
    rollout = replace(rollout, finished=torch.ones(24, dtype=torch.bool))
    scores = tuple(Score(float(right), 1.0, formed, "7", None) for right, formed in CHOSEN)
    components = torch.zeros(6, 4, 1, dtype=torch.float64)
    return RolloutBatch(batch, rollout, scores, components, components[..., 0], torch.ones(6, dtype=torch.bool))


def test_only_right_and_well_formed_samples_are_chosen_and_their_tokens_weigh_the_same(rollouts):
    finished = torch.ones(24, dtype=torch.bool)
    finished[12] = False  # a truncated sample would teach the policy not to end
    rollouts = replace(rollouts, rollout=replace(rollouts.rollout, finished=finished))
    advantages, weights = right_samples(rollouts)
    chosen = torch.tensor([right and formed for right, formed in CHOSEN]) & finished
    assert advantages.flatten().tolist() == chosen.float().tolist()
    tokens = rollouts.rollout.mask[chosen].sum()
    expected = torch.where(rollouts.rollout.mask & chosen[:, None], 1 / tokens, 0.0)
    assert torch.allclose(weights, expected)
    nothing = replace(rollouts, scores=tuple(replace(s, exact=0.0) for s in rollouts.scores))
    assert all(not values.any() for values in right_samples(nothing))


def test_completions_follow_other_prompts_with_the_log_probs_they_were_sampled_with(rollouts, batch):
    shorter = replace(batch, prompt_ids=batch.prompt_ids[:, 1:], prompt_lengths=batch.prompt_lengths - 1)
    found = after_prompts(rollouts, shorter)
    assert found.prompts is shorter
    assert found.rollout.prompt_ids is shorter.prompt_ids
    assert found.rollout.prompt_lengths is shorter.prompt_lengths
    assert found.rollout.sampling_logps is rollouts.rollout.sampling_logps
    assert found.scores is rollouts.scores


@pytest.mark.parametrize(
    "objective",
    [
        Objective(),
        Objective(loss_type="grpo", surrogate=GSPO()),
        Objective(surrogate=CISPO(), importance_correction="truncated", importance_cap=1.001),
        Objective(beta=1.0, entropy_bonus=0.1, num_iterations=2),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_gradient_is_that_of_the_mean_log_prob_after_the_prompts_without_examples(
    own_policy, rollouts, batch, objective, first
):
    """Against a plain implementation with full logits; whatever the objective, and although other prompts were sampled for."""
    shorter = replace(batch, prompt_ids=batch.prompt_ids[:, 1:], prompt_lengths=batch.prompt_lengths - 1)
    found = after_prompts(rollouts, shorter)
    module = make_module(own_policy, objective=objective, token_budget=200, sft_steps=1)
    module.supervised, module.meter = True, StepMeter()
    own_policy.model.zero_grad()
    logprobs = TrainerLogprobs.empty(found.rollout)
    if not first:
        logprobs.logps.fill_(-9.0)  # ratios that a later update of GRPO would clip
    advantages, weights = module.compute_advantages(found)
    module.accumulate_gradients(found.rollout, advantages, weights, logprobs, first=first)
    ours = [p.grad.clone() for p in own_policy.trained_parameters()]
    assert "logprob_mismatch" not in module.meter.sums
    own_policy.model.zero_grad()
    total, tokens, rollout = 0.0, 0, found.rollout
    for n in [n for n, (right, formed) in enumerate(CHOSEN) if right and formed]:
        prompt = shorter.prompt_ids[n // 4, : shorter.prompt_lengths[n // 4]]
        completion = rollout.completion_ids[n][rollout.mask[n]]
        ids = torch.cat([prompt, completion])[None]
        logits = own_policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1, : own_policy.head.words]
        total = total - logits.log_softmax(-1).gather(1, completion[:, None]).sum()
        tokens += len(completion)
    (total / tokens).backward()
    assert_same(ours, [p.grad.clone() for p in own_policy.trained_parameters()])


class Seen(StepCallback):
    """What each step sampled for, trained on and logged."""

    def __init__(self) -> None:
        self.steps: list[SimpleNamespace] = []
        self.sampled: list[int] = []

    def on_train_start(self, trainer, pl_module):
        generate_for = pl_module.engine.generate
        pl_module.engine.generate = lambda prompts, *args: (
            self.sampled.append(int(prompts.prompt_lengths.max())) or generate_for(prompts, *args)
        )

    def on_step(self, trainer, pl_module, record):
        trained = int(record.rollouts.rollout.prompt_lengths.max())
        self.steps.append(SimpleNamespace(record=record, trained=trained, metrics=dict(pl_module.metrics)))


def test_the_first_steps_are_sampled_with_examples_and_trained_on_without(tmp_path):
    seen = Seen()
    run(tmp_path, 4, callbacks=[seen], data=EXAMPLES, sft_steps=2, evaluate=False, sampling=Sampling(16, 32))
    assert [step.record.supervised for step in seen.steps] == [True, True, False, False]
    assert all(length > 2 * step.trained for length, step in zip(seen.sampled[:2], seen.steps, strict=False))
    assert seen.sampled[2:] == [step.trained for step in seen.steps[2:]]
    for step in seen.steps:
        rollouts = step.record.rollouts
        finished = rollouts.rollout.finished.tolist()
        right = sum(s.exact == 1 and s.well_formed and f for s, f in zip(rollouts.scores, finished, strict=True))
        assert step.metrics.get("sft/samples") == (right if step.record.supervised else None)
        assert ("policy/logprob_mismatch" in step.metrics) == (not step.record.supervised)
    assert any(step.metrics.get("sft/samples") for step in seen.steps)
    rows = pd.read_parquet(tmp_path / "rollouts")
    assert rows.groupby("step")["logprob_mismatch"].count().tolist()[:2] == [0, 0]
    assert rows["logprob_mismatch"].count() > 0


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_stopped_in_its_supervised_steps_or_after_them_continues_to_the_last_bit(tmp_path, stop):
    of = {"data": EXAMPLES, "sft_steps": 2, "evaluate": False, "sampling": Sampling(16, 32)}
    run(tmp_path / "whole", 4, **of)
    run(tmp_path / "stopped", stop, save_steps=1, **of)
    run(tmp_path / "stopped", 4, ckpt_path=str(tmp_path / "stopped" / f"checkpoint-{stop}" / "trainer.ckpt"), **of)
    same(tmp_path / "stopped", tmp_path / "whole", 4)


def test_evaluations_show_no_examples_and_can_be_compared_with_a_run_that_has_none(tmp_path):
    run(tmp_path / "with", 1, data=EXAMPLES, sft_steps=1)
    run(tmp_path / "without", 1)
    suites = [(tmp_path / name / "eval_results" / "suite.json").read_text() for name in ("with", "without")]
    assert suites[0] == suites[1]


def test_a_prompt_that_is_too_long_with_examples_is_skipped(tmp_path):
    with pytest.raises(UserError, match="are longer than max_prompt_tokens"):
        run(tmp_path, 1, data=EXAMPLES | {"max_prompt_tokens": 60}, sft_steps=1, evaluate=False)


@pytest.mark.parametrize(
    ("data", "model", "said"),
    [
        (
            {"examples_for": "sft_steps"},
            {"sft_steps": 1},
            "data.examples_for: sft_steps has no effect without examples",
        ),
        (EXAMPLES, {}, "data.examples_for: sft_steps has no effect while model.sft_steps is 0"),
        ({"examples_for": "never"}, {}, "data.examples_for: 'never' is not allowed; it must be all_steps or sft_steps"),
        ({}, {"sft_steps": -1}, "model.sft_steps: -1 is not allowed; it must be 0 or more"),
    ],
)
def test_settings_without_effect_are_refused(tmp_path, data, model, said):
    with pytest.raises(UserError, match=said):
        run(tmp_path, 1, data=data, evaluate=False, **model)
