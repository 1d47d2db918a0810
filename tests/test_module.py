"""One step of the algorithm: its gradient is the same however it is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rl_lightning.memory import MemoryLimits
from rl_lightning.module import GRPOModule
from rl_lightning.objective import CISPO, GSPO, SAPO, Clip, Objective, group_advantages, token_weights
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.policy import policy as policy_room
from rl_lightning.rollout import Sampling
from rl_lightning.training.metrics import StepMeter
from rl_lightning.types import Rollout, TrainerLogprobs, UserError
from tests.conftest import generate, shake

SAMPLING = Sampling(num_generations=4, max_new_tokens=24)


@pytest.fixture(scope="module")
def own_policy() -> Policy:
    policy = Policy(PolicyConfig("tiny", quantization="none"), torch.device("cpu"))
    shake(policy)
    return policy


def make_module(policy, token_budget=8192, **kwargs) -> GRPOModule:
    module = GRPOModule(**{"sampling": SAMPLING} | kwargs)
    module.policy, module.limits = policy, MemoryLimits.of(token_budget, rollout_rows=24)
    module.scaler = torch.amp.GradScaler("cpu", enabled=False)
    module.manual_backward = lambda loss: loss.backward()  # what Lightning's does without a strategy
    return module


@pytest.fixture(scope="module")
def rollout(own_policy, batch) -> Rollout:
    return generate(own_policy, batch, SAMPLING)


def gradient(module, rollout, rewards, old=None) -> list[torch.Tensor]:
    """The adapters' gradients of one whole step, of its first update or of a later one with these old log-probs."""
    module.policy.model.zero_grad()
    module.meter = StepMeter()
    weights = token_weights(rollout.mask, module.objective.loss_type, SAMPLING.max_new_tokens)
    trainer = TrainerLogprobs.empty(rollout)
    if old is not None:
        trainer.logps.copy_(old)
    module.accumulate_gradients(rollout, group_advantages(rewards), weights, trainer, first=old is None)
    return [p.grad.clone() for p in module.policy.trained_parameters()]


def rewards_of_which_two_groups_have_no_variance() -> torch.Tensor:
    rewards = torch.rand(6, 4, generator=torch.Generator().manual_seed(2))
    rewards[1], rewards[4] = 0.0, 1.1
    return rewards


REWARDS = rewards_of_which_two_groups_have_no_variance()


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    """Equal to 1e-5 of the gradient's norm, tensor by tensor; a product of sums in another order differs in the last bits."""
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()
    assert sum(float(b.norm()) for b in theirs) > 1e-3


OBJECTIVES = {
    **{loss_type: Objective(loss_type=loss_type) for loss_type in ("grpo", "dr_grpo", "dapo", "bnpo")},
    "GSPO": Objective(surrogate=GSPO(), loss_type="grpo"),
    "entropy": Objective(surrogate=SAPO(), entropy_bonus=0.1),
    "corrected": Objective(surrogate=CISPO(), importance_correction="truncated", importance_cap=1.001),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("budget", [1, 90, 300, 100_000])
def test_gradient_is_the_same_for_every_micro_batch_size(own_policy, rollout, name, budget):
    objective = OBJECTIVES[name]
    one = make_module(own_policy, objective=objective, token_budget=10**9)
    packed = make_module(own_policy, objective=objective, token_budget=budget)
    assert_same(gradient(packed, rollout, REWARDS), gradient(one, rollout, REWARDS))


LATER = {
    "clip": Objective(surrogate=Clip(delta=1.5)),
    "GSPO": Objective(surrogate=GSPO(), loss_type="grpo"),
    "truncated": Objective(surrogate=CISPO(), importance_correction="truncated", importance_cap=1.1),
    "masked": Objective(surrogate=SAPO(), importance_correction="masked", importance_cap=1.2),
}


@pytest.mark.parametrize("name", LATER)
def test_a_later_updates_gradient_is_the_same_for_every_micro_batch_size(own_policy, rollout, name):
    """When the policy is no longer the one that sampled, and sampler and trainer are apart: ratios are beyond their ends."""
    noise = 0.3 * torch.randn(2, *rollout.mask.shape, generator=torch.Generator().manual_seed(6))
    apart = replace(rollout, sampling_logps=rollout.sampling_logps + noise[0])
    old = rollout.sampling_logps + noise[1]
    one = make_module(own_policy, objective=LATER[name], token_budget=10**9)
    expected = gradient(one, apart, REWARDS, old)
    packed = make_module(own_policy, objective=LATER[name], token_budget=90)
    assert_same(gradient(packed, apart, REWARDS, old), expected)
    if name in ("clip", "truncated"):
        assert one.meter.sums["clipped_high"] > 0
    plain = make_module(own_policy, objective=replace(LATER[name], importance_correction="none"), token_budget=10**9)
    same = all(torch.allclose(a, b) for a, b in zip(gradient(plain, apart, REWARDS, old), expected, strict=True))
    assert same == (LATER[name].importance_correction == "none")


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo"])
def test_gradient_equals_a_plain_implementation(own_policy, rollout, loss_type):
    """Completion by completion, full logits, no skipping, no packing, no padding, straight from the paper's formula."""
    module = make_module(own_policy, objective=Objective(loss_type=loss_type))
    ours = gradient(module, rollout, REWARDS)
    own_policy.model.zero_grad()
    advantages = ((REWARDS - REWARDS.mean(1, keepdim=True)) / (REWARDS.std(1, keepdim=True) + 1e-4)).flatten()
    total = 0.0
    for n in range(24):
        prompt = rollout.prompt_ids[n // 4, : rollout.prompt_lengths[n // 4]]
        completion = rollout.completion_ids[n][rollout.mask[n]]
        logits = own_policy.model(input_ids=torch.cat([prompt, completion])[None]).logits[
            0, len(prompt) - 1 : -1, : own_policy.head.words
        ]
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
    assert_same(ours, [p.grad.clone() for p in own_policy.trained_parameters()])


def test_leaving_out_groups_without_reward_variance_is_exact(own_policy, rollout):
    module = make_module(own_policy)
    without_them = gradient(module, rollout, REWARDS)
    tokens = module.meter.sums["tokens"]
    everything = make_module(own_policy, objective=Objective(beta=1e-30))  # a KL of no weight: every group is forwarded
    with_them = gradient(everything, rollout, REWARDS)
    assert tokens < everything.meter.sums["tokens"] == int(rollout.mask.sum())
    assert_same(without_them, with_them)


@pytest.mark.parametrize("tile", [(1, 100), (7, 10**6), (10**6, 64)])
def test_gradient_does_not_depend_on_the_tile(own_policy, rollout, tile, monkeypatch):
    expected = gradient(make_module(own_policy), rollout, REWARDS)
    original = policy_room.tiled_log_probs
    monkeypatch.setattr(policy_room, "tiled_log_probs", lambda *args, **more: original(*args, **more, tile=tile))
    assert_same(gradient(make_module(own_policy), rollout, REWARDS), expected)


def test_gradient_does_not_depend_on_padding(own_policy, rollout):
    wide = torch.nn.functional.pad
    padded = replace(
        rollout,
        prompt_ids=wide(rollout.prompt_ids, (0, 9), value=3),
        completion_ids=wide(rollout.completion_ids, (0, 13), value=5),
        mask=wide(rollout.mask, (0, 13)),
        sampling_logps=wide(rollout.sampling_logps, (0, 13)),
    )
    module = make_module(own_policy)
    assert_same(gradient(module, padded, REWARDS), gradient(module, rollout, REWARDS))


@pytest.mark.parametrize("budget", [1, 300])
def test_the_tokens_of_high_entropy_are_those_of_the_whole_step(own_policy, rollout, budget):
    """However it is packed; and they are a fifth of those that would be trained on, the ones with the highest entropy."""
    objective = Objective(top_entropy=0.2)
    advantages, weights = group_advantages(REWARDS), token_weights(rollout.mask, "dapo", 24)
    one, packed = (make_module(own_policy, objective=objective, token_budget=b) for b in (10**9, budget))
    found = one.mask_low_entropy(rollout, advantages, weights)
    assert torch.equal(packed.mask_low_entropy(rollout, advantages, weights) > 0, found > 0)
    trained = rollout.mask & (advantages.flatten() != 0)[:, None]
    assert torch.equal(found[found > 0], weights[found > 0])  # not scaled up for it
    least = 0.2 * int(trained.sum())
    assert least <= int((found > 0).sum()) <= least + 4  # first tokens of a group have equal entropy
    one.meter, trainer = StepMeter(), TrainerLogprobs.empty(rollout)
    own_policy.model.zero_grad()
    one.accumulate_gradients(rollout, advantages, weights, trainer, first=True)
    assert trainer.entropies[found > 0].min() >= trainer.entropies[trained & (found == 0)].max()
    assert all(p.grad is not None for p in own_policy.trained_parameters())


def test_a_step_without_reward_variance_leaves_no_gradient(own_policy, rollout):
    module = make_module(own_policy)
    own_policy.model.zero_grad()
    module.meter, trainer = StepMeter(), TrainerLogprobs.empty(rollout)
    weights = token_weights(rollout.mask, "dapo", 24)
    module.accumulate_gradients(rollout, torch.zeros(6, 4), weights, trainer, first=True)
    assert all(p.grad is None for p in own_policy.trained_parameters())
    assert trainer.logps.isnan().all()


def test_sampler_and_trainer_agree_in_float32(own_policy, rollout):
    module = make_module(own_policy)
    gradient(module, rollout, REWARDS)
    assert float(module.meter.sums["logprob_mismatch"]) / module.meter.sums["tokens"] < 1e-5


def test_out_of_memory_in_the_update_halves_the_token_budget_for_good_and_changes_no_gradient(
    own_policy, rollout, monkeypatch
):
    whole = make_module(own_policy)
    expected = gradient(whole, rollout, REWARDS)
    module, original, calls = make_module(own_policy, token_budget=90), policy_room.tiled_log_probs, []

    def out_of_memory_once(*args, **more):
        calls.append(args)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*args, **more)

    monkeypatch.setattr(policy_room, "tiled_log_probs", out_of_memory_once)
    assert_same(gradient(module, rollout, REWARDS), expected)
    assert module.limits.token_budget.value == 45
    assert module.meter.sums["tokens"] == whole.meter.sums["tokens"]  # what was done before it is not counted twice


@pytest.mark.parametrize(
    "setting", ["learning_rate", "max_grad_norm", "token_budget", "score_workers", "score_seconds"]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(UserError, match=f"model.{setting}"):
        GRPOModule(**{setting: 0})
