"""One step of the algorithm: its gradient is the same however it is computed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rl_lightning.metrics import Meter
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective, group_advantages, token_weights
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.policy import policy as policy_room
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import Reward, Scorer
from rl_lightning.types import Rollout, UserError
from tests.conftest import shake

SAMPLING = Sampling(num_generations=4, max_new_tokens=24)


@pytest.fixture(scope="module")
def own_policy() -> Policy:
    policy = Policy(PolicyConfig("tiny", quantization="none"), torch.device("cpu"))
    shake(policy)
    return policy


def make_module(policy, **kwargs) -> GRPOModule:
    module = GRPOModule(**{"sampling": SAMPLING, "token_budget": 8192} | kwargs)
    module.policy = policy
    module.scaler = torch.amp.GradScaler("cpu", enabled=False)
    module.manual_backward = lambda loss: loss.backward()  # what Lightning's does without a strategy
    return module


@pytest.fixture(scope="module")
def rollout(own_policy, batch) -> Rollout:
    module = make_module(own_policy)
    module.scorer = SimpleNamespace(begin=lambda problem, text: None)  # nothing is scored here
    return module.sample(batch, torch.Generator().manual_seed(0))


def gradient(module, rollout, rewards, old=None) -> list[torch.Tensor]:
    """The adapters' gradients of one whole step, of its first update or of a later one with these old log-probs."""
    module.policy.model.zero_grad()
    module.meter = Meter()
    advantages = group_advantages(rewards).flatten()
    weights = token_weights(rollout.mask, module.objective.loss_type, SAMPLING.max_new_tokens)
    blank = torch.zeros(rollout.mask.shape)
    module.accumulate_gradients(rollout, advantages, weights, blank if old is None else old, blank.clone(), old is None)
    return [p.grad.clone() for p in module.policy.adapter_parameters()]


def rewards_with_dead_groups() -> torch.Tensor:
    rewards = torch.rand(6, 4, generator=torch.Generator().manual_seed(2))
    rewards[1], rewards[4] = 0.0, 1.1
    return rewards


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    """Equal to 1e-5 of the gradient's norm, tensor by tensor; a product of sums in another order differs in the last bits."""
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()
    assert sum(float(b.norm()) for b in theirs) > 1e-3


OBJECTIVES = {
    **{loss_type: Objective(loss_type=loss_type) for loss_type in ("grpo", "dr_grpo", "dapo", "bnpo")},
    "gspo": Objective(surrogate="gspo", loss_type="grpo"),
    "entropy": Objective(surrogate="sapo", entropy_bonus=0.1),
    "corrected": Objective(surrogate="cispo", sampler_correction="truncated", sampler_cap=1.001),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("budget", [1, 90, 300, 100_000])
def test_gradient_is_the_same_for_every_micro_batch_size(own_policy, rollout, name, budget):
    objective = OBJECTIVES[name]
    one = make_module(own_policy, objective=objective, token_budget=10**9)
    cut_up = make_module(own_policy, objective=objective, token_budget=budget)
    rewards = rewards_with_dead_groups()
    assert_same(gradient(cut_up, rollout, rewards), gradient(one, rollout, rewards))


LATER = {
    "clip": Objective(delta=1.5),
    "gspo": Objective(surrogate="gspo", loss_type="grpo"),
    "truncated": Objective(surrogate="cispo", sampler_correction="truncated", sampler_cap=1.1),
    "masked": Objective(surrogate="sapo", sampler_correction="masked", sampler_cap=1.2),
}


@pytest.mark.parametrize("name", LATER)
def test_a_later_updates_gradient_is_the_same_for_every_micro_batch_size(own_policy, rollout, name):
    """When the policy is no longer the one that sampled, and sampler and trainer are apart: ratios are beyond their ends."""
    noise = 0.3 * torch.randn(2, *rollout.mask.shape, generator=torch.Generator().manual_seed(6))
    apart = replace(rollout, sampling_logps=rollout.sampling_logps + noise[0])
    old, rewards = rollout.sampling_logps + noise[1], rewards_with_dead_groups()
    one = make_module(own_policy, objective=LATER[name], token_budget=10**9)
    expected = gradient(one, apart, rewards, old)
    cut_up = make_module(own_policy, objective=LATER[name], token_budget=90)
    assert_same(gradient(cut_up, apart, rewards, old), expected)
    if name in ("clip", "truncated"):
        assert one.meter.sums["clipped_high"] > 0
    plain = make_module(own_policy, objective=replace(LATER[name], sampler_correction="none"), token_budget=10**9)
    same = all(torch.allclose(a, b) for a, b in zip(gradient(plain, apart, rewards, old), expected, strict=True))
    assert same == (LATER[name].sampler_correction == "none")


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo"])
def test_gradient_equals_a_plain_implementation(own_policy, rollout, loss_type):
    """Completion by completion, full logits, no skipping, no packing, no padding, straight from the paper's formula."""
    module = make_module(own_policy, objective=Objective(loss_type=loss_type))
    rewards = rewards_with_dead_groups()
    ours = gradient(module, rollout, rewards)
    own_policy.model.zero_grad()
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
    total = 0.0
    for n in range(24):
        prompt = rollout.prompt_ids[n // 4, : rollout.prompt_lengths[n // 4]]
        completion = rollout.completion_ids[n][rollout.mask[n]]
        logits = own_policy.model(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        logps = logits.log_softmax(-1).gather(1, completion[:, None]).squeeze(1)
        per_token = -torch.exp(logps - logps.detach()) * advantages[n]
        divisor = {
            "grpo": 24 * len(completion),
            "dr_grpo": 24 * SAMPLING.max_new_tokens,
            "dapo": rollout.mask.sum(),
            "bnpo": rollout.mask.sum(),
        }[loss_type]
        total = total + per_token.sum() / divisor
    total.backward()
    assert_same(ours, [p.grad.clone() for p in own_policy.adapter_parameters()])


def test_skipping_dead_groups_is_exact(own_policy, rollout, monkeypatch):
    rewards = rewards_with_dead_groups()
    module = make_module(own_policy)
    skipped = gradient(module, rollout, rewards)
    tokens = module.meter.sums["tokens"]
    everything = make_module(own_policy, objective=Objective(beta=1e-30))  # a KL of no weight: every group is forwarded
    whole = gradient(everything, rollout, rewards)
    assert tokens < everything.meter.sums["tokens"] == int(rollout.mask.sum())
    assert_same(skipped, whole)


@pytest.mark.parametrize("tile", [(1, 100), (7, 10**6), (10**6, 64)])
def test_gradient_does_not_depend_on_the_tile(own_policy, rollout, tile, monkeypatch):
    rewards = rewards_with_dead_groups()
    expected = gradient(make_module(own_policy), rollout, rewards)
    original = policy_room.tiled_log_probs
    monkeypatch.setattr(policy_room, "tiled_log_probs", lambda *args: original(*args, tile=tile))
    assert_same(gradient(make_module(own_policy), rollout, rewards), expected)


def test_gradient_does_not_depend_on_padding(own_policy, rollout):
    wide = torch.nn.functional.pad
    padded = replace(
        rollout,
        prompt_ids=wide(rollout.prompt_ids, (0, 9), value=3),
        completion_ids=wide(rollout.completion_ids, (0, 13), value=5),
        mask=wide(rollout.mask, (0, 13)),
        sampling_logps=wide(rollout.sampling_logps, (0, 13)),
    )
    rewards = rewards_with_dead_groups()
    module = make_module(own_policy)
    assert_same(gradient(module, padded, rewards), gradient(module, rollout, rewards))


@pytest.mark.parametrize("budget", [1, 300])
def test_the_least_sure_tokens_are_those_of_the_whole_step(own_policy, rollout, budget):
    """However it is cut; and they are a fifth of those that would be trained on, the ones with the highest entropy."""
    objective = Objective(top_entropy=0.2)
    advantages = group_advantages(rewards_with_dead_groups()).flatten()
    weights = token_weights(rollout.mask, "dapo", 24)
    one, cut_up = (make_module(own_policy, objective=objective, token_budget=b) for b in (10**9, budget))
    found = one.where_least_sure(rollout, advantages, weights)
    assert torch.equal(cut_up.where_least_sure(rollout, advantages, weights) > 0, found > 0)
    live = rollout.mask & (advantages != 0)[:, None]
    assert torch.equal(found[found > 0], weights[found > 0])  # not scaled up for it
    least = 0.2 * int(live.sum())
    assert least <= int((found > 0).sum()) <= least + 4  # first tokens of a group are equally sure
    _, entropies = torch.zeros(2, *rollout.mask.shape)
    one.meter = Meter()
    own_policy.model.zero_grad()
    one.accumulate_gradients(rollout, advantages, weights, torch.zeros_like(weights), entropies, first=True)
    assert entropies[found > 0].min() >= entropies[live & (found == 0)].max()
    assert all(p.grad is not None for p in own_policy.adapter_parameters())


def test_all_groups_dead_leave_no_gradient(own_policy, rollout):
    module = make_module(own_policy)
    own_policy.model.zero_grad()
    module.meter = Meter()
    weights = token_weights(rollout.mask, "dapo", 24)
    module.accumulate_gradients(rollout, torch.zeros(24), weights, *torch.zeros(2, *rollout.mask.shape), first=True)
    assert all(p.grad is None for p in own_policy.adapter_parameters())


def test_sampler_and_trainer_agree_in_float32(own_policy, rollout):
    module = make_module(own_policy)
    gradient(module, rollout, rewards_with_dead_groups())
    assert float(module.meter.sums["sampler_gap"]) / module.meter.sums["tokens"] < 1e-5


def test_a_reward_that_is_not_finite_is_refused(own_policy, batch, rollout, mixture):
    class Broken(Reward):
        def __call__(self, problem, completion, score):
            return float("nan")

    module = make_module(own_policy, reward=Broken())
    module.scorer = Scorer(mixture)
    with pytest.raises(UserError, match="Broken gave a reward that is not a finite number"):
        module.judge(batch, rollout)


@pytest.mark.parametrize("setting", ["learning_rate", "max_grad_norm", "token_budget"])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(UserError, match=f"model.{setting}"):
        GRPOModule(**{setting: 0})
