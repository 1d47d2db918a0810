"""What the algorithm makes of a rollout before the update: scores, rewards, advantages, token weights."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rl_lightning.evaluation import EvalSampling, problem_draws
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import Reward, WeightedReward
from rl_lightning.training.joining import append
from rl_lightning.types import UserError
from tests.training.constructed import (
    RIGHT,
    WRONG,
    ConstructedEngine,
    ConstructedScorer,
    prompt_batch,
    rollout_batch,
)


def make_module(with_variance: set[int] = frozenset(), limit: int = 8, reward=None, **objective) -> GRPOModule:
    """Groups of two by an engine that makes them up, scored without a verifier."""
    module = GRPOModule(
        sampling=Sampling(2, limit),
        objective=Objective(**objective),
        reward=reward or WeightedReward(),
        engine=ConstructedEngine(with_variance),
    )
    module.scorer = ConstructedScorer()
    return module


def test_a_step_is_sampled_from_the_modules_own_random_numbers_and_scored_meanwhile():
    module, expected = make_module({0, 2}), torch.Generator().manual_seed(0)
    for _ in range(2):  # the generator advances by exactly as many numbers as the rows might need
        rollouts = module.sample_and_score(prompt_batch([0, 1, 2]))
        assert torch.equal(module.engine.draws[-1], torch.rand((6, 8), generator=expected, dtype=torch.float64))
    assert torch.equal(module.generator.get_state(), expected.get_state())
    assert module.scorer.submitted == [(0, "1"), (0, "0"), (1, "0"), (1, "0"), (2, "1"), (2, "0")] * 2
    assert rollouts.scores == (RIGHT, WRONG, WRONG, WRONG, RIGHT, WRONG)
    assert rollouts.rewards.tolist() == [[pytest.approx(1.1), 0], [0, 0], [pytest.approx(1.1), 0]]
    assert [(problem.index, share) for problem, share in rollouts.accuracies] == [(0, 0.5), (1, 0.0), (2, 0.5)]
    assert rollouts.kept.all()
    assert set(module.meter.seconds) == {"sample", "score"}


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
def test_groups_that_are_not_kept_have_no_part_in_weights_and_advantages(scale, loss_type):
    """The step is that of the kept groups alone, to the last bit."""
    module = make_module(loss_type=loss_type, scale_advantages=scale)
    kept, left_out = rollout_batch([1, 2, 3], [True, False, True]), rollout_batch([8, 9], [False, True], width=6)
    kept.reward_components[0, 1, 0], kept.reward_components[2, 0, 0] = 0.25, 0.5
    sampled = replace(append(kept, left_out), kept=torch.tensor([True] * 3 + [False] * 2))
    advantages, weights = module.compute_advantages(sampled)
    alone_advantages, alone_weights = module.compute_advantages(kept)
    assert torch.equal(advantages[:3], alone_advantages)
    assert torch.equal(weights[:6, :3], alone_weights)
    assert not advantages[3:].any()
    assert not weights[6:].any()
    assert not weights[:, 3:].any()
    assert alone_advantages.any()
    assert alone_weights.any()


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ({}, [0, 1, 4]),
        ({"beta": 0.1}, [0, 1, 2, 3, 4]),
        ({"entropy_bonus": 0.1}, [0, 1, 2, 3, 4]),
    ],
)
def test_rows_without_advantage_are_left_out_unless_kl_or_entropy_give_them_a_gradient(objective, expected):
    rollouts = rollout_batch([0, 1, 2], [True, False, True])
    advantages, weights = torch.tensor([[1.0, -1.0], [0.0, 0.0], [1.0, -1.0]]), torch.ones(6, 3)
    weights[5] = 0  # a completion that does not count, one that was cut off
    found = make_module(**objective).trainable_rows(rollouts.rollout, advantages, weights)
    assert found.tolist() == expected


def test_a_group_of_truncated_completions_has_no_variance_where_such_rows_do_not_count():
    rollouts = rollout_batch([0, 1], [True, True])
    rollouts.rollout.finished[:2] = False
    assert make_module().has_variance(rollouts).tolist() == [True, True]
    assert make_module(mask_truncated_completions=True).has_variance(rollouts).tolist() == [False, True]


def components(module: GRPOModule) -> torch.Tensor:
    """Of the rewards of four completions of 3 tokens, the first of each prompt right."""
    rollouts = rollout_batch([0, 1], [True, True])
    scores, found = module.score(rollouts.prompts, rollouts.rollout)
    assert scores == (RIGHT, WRONG) * 2
    return found


def test_a_reward_is_asked_for_its_sum_unless_its_components_are_compared():
    class Short(WeightedReward):
        def __call__(self, problem, completion, score):
            return super().__call__(problem, completion, score) - 0.25 * len(completion)

    assert components(make_module(reward=Short())).flatten().tolist() == pytest.approx([0.85, 0.0, -0.25, 0.0] * 2)
    module = make_module(reward=WeightedReward(exact=2.0, partial=0.5), reward_aggregation="normalize_then_sum")
    assert components(module).tolist() == [[[1.0, 1.0, 1.0, 0.0], [0.0] * 4]] * 2
    assert module.component_weights().tolist() == [2.0, 0.5, 0.1, 1.0]


def test_the_penalty_for_length_is_part_of_the_reward():
    found = components(make_module(overlong_buffer=6))
    assert found[..., 1].tolist() == [[pytest.approx(-1 / 6)] * 2] * 2  # 3 tokens are one of six into the buffer
    with pytest.raises(
        UserError, match=r"overlong_buffer: 8 is not allowed; it must be below max_new_tokens, which is 8"
    ):
        make_module(overlong_buffer=8)


def test_a_reward_that_is_not_finite_is_refused():
    class Broken(Reward):
        def __call__(self, problem, completion, score):
            return float("nan")

    with pytest.raises(UserError, match="Broken gave nan .float.; it must be a finite number, or None"):
        components(make_module(reward=Broken()))


class EvaluatedEngine(ConstructedEngine):
    """One that makes as many completions as an evaluation asks for."""

    def generate(self, prompts, sampling, draws, on_finished=None):
        self.sampling = sampling
        rollout = super().generate(prompts, sampling, draws, lambda row, text: None)
        group = 1 if draws is None else sampling.num_generations
        rows = [2 * b + g % 2 for b in range(len(prompts)) for g in range(group)]
        fields = ("completion_ids", "mask", "sampling_logps", "finished")
        texts = tuple(rollout.texts[row] for row in rows)
        for row, text in enumerate(texts):
            on_finished(row, text)
        return replace(rollout, texts=texts, **{name: getattr(rollout, name)[rows] for name in fields})


@pytest.mark.parametrize("wanted", [None, EvalSampling(samples=3, temperature=0.5)])
def test_an_evaluation_samples_as_it_is_told_and_touches_no_random_state(wanted):
    module = make_module()
    module.engine, module.eval_sampling = EvaluatedEngine({0, 1}), wanted
    module.policy = SimpleNamespace(refuse_longer=lambda tokens: None)
    states, prompts = (module.generator.get_state(), torch.get_rng_state()), prompt_batch([0, 1])
    found = module.validation_step(prompts, 0)
    if wanted is None:
        assert module.engine.draws == [None]
        assert found.scores == (RIGHT, RIGHT)
        assert module.scorer.submitted == [(0, "1"), (1, "1")]
    else:
        assert torch.equal(module.engine.draws[0], problem_draws(prompts.problems, 3, 8))
        assert (module.engine.sampling.num_generations, module.engine.sampling.temperature) == (3, 0.5)
        assert found.scores == (RIGHT, WRONG, RIGHT) * 2
        assert module.scorer.submitted == [(0, "1"), (0, "0"), (0, "1"), (1, "1"), (1, "0"), (1, "1")]
    assert module.engine.synced == 1
    assert found.rollout.texts == tuple("1" if score == RIGHT else "0" for score in found.scores)
    assert torch.equal(module.generator.get_state(), states[0])
    assert torch.equal(torch.get_rng_state(), states[1])
