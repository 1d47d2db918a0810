"""Updates on a GPU: 4-bit gradients against dense ones, and loss scaling in float16 against a plain loop."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.objective import Objective, group_advantages, token_weights
from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.policy.lora import dense_weight, is_adapted
from rl_lightning.training.metrics import StepMeter
from rl_lightning.types import TrainerLogprobs
from tests.conftest import generate, shake
from tests.test_module import SAMPLING, make_module

REWARDS = torch.rand(6, 4, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_gradients_on_a_4_bit_base_are_those_on_its_weights_dequantised(dtype, tolerance, checkpointing, device, batch):
    """The tolerance in float32 is rounding; in bfloat16 a product's last bit is 0.4%, and a gradient goes through four layers of
    them twice."""
    settings = {"dtype": dtype, "gradient_checkpointing": checkpointing}
    packed = Policy(PolicyConfig("tiny", quantization="nf4", **settings), device)
    dense = Policy(PolicyConfig("tiny", quantization="none", **settings), device)
    own = dict(dense.model.named_modules())
    with torch.no_grad():
        for name, layer in packed.model.named_modules():
            if is_adapted(layer):
                weights = dense_weight(layer.get_base_layer())
                assert not torch.equal(own[name].get_base_layer().weight, weights)
                own[name].get_base_layer().weight.copy_(weights)
    for policy in (packed, dense):
        shake(policy, 0.05)
    rollout = generate(dense, batch.to(device), SAMPLING)
    found = []
    for policy in (packed, dense):
        for micro in pack(rollout, torch.arange(24, device=device), 400):
            logps, _ = policy.log_probs(micro, 1.0)
            (logps * torch.linspace(-1, 1, len(logps), device=device)).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in policy.trained_parameters()]))
    assert found[1].norm() > 0
    assert (found[0] - found[1]).norm() <= tolerance * found[1].norm()


class Optimizer:
    """What Lightning wraps around an optimizer, as far as a step uses it."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups
        self.step, self.zero_grad = optimizer.step, optimizer.zero_grad


def test_loss_scaling_skips_and_takes_the_steps_of_a_plain_loop(device, batch):
    """torch's own recipe: scale, unscale, clip, step, update. The scale begins so high that gradients overflow in float16, and
    grows after two steps, so that steps are skipped later too."""
    config = PolicyConfig("tiny", quantization="none", dtype="float16")
    policy, plain = Policy(config, device), Policy(config, device)
    for each in (policy, plain):
        shake(each)
    module, rollout = make_module(policy, token_budget=400), generate(policy, batch.to(device), SAMPLING)
    scalers = [torch.amp.GradScaler(device.type, init_scale=2.0**24, growth_interval=2) for _ in range(2)]
    adam, theirs = (torch.optim.AdamW(p.trained_parameters(), lr=1e-3) for p in (policy, plain))
    module.scaler, wrapped = scalers[0], Optimizer(adam)
    module.optimizers, module.lr_schedulers = lambda: wrapped, lambda: torch.optim.lr_scheduler.ConstantLR(adam, 1.0)
    advantages = group_advantages(REWARDS.to(device))
    weights = token_weights(rollout.mask, Objective().loss_type, SAMPLING.max_new_tokens)
    skipped, trainer = [], TrainerLogprobs.empty(rollout)
    for _ in range(16):
        module.meter, before, scale = StepMeter(), parameters(policy), scalers[0].get_scale()
        module.accumulate_gradients(rollout, advantages, weights, trainer, first=True)
        module.step_optimizer(None)
        module.not_finite_in_a_row = 0
        for micro in pack(rollout, torch.arange(24, device=device), 400):
            logps, _ = plain.log_probs(micro, 1.0)
            gains = weights[micro.row_of, micro.column_of] * advantages.flatten()[micro.row_of]
            scalers[1].scale(-(gains * (logps - logps.detach()).exp()).sum()).backward()
        scalers[1].unscale_(theirs)
        torch.nn.utils.clip_grad_norm_(plain.trained_parameters(), 1.0)
        scalers[1].step(theirs)
        scalers[1].update()
        theirs.zero_grad()
        skipped.append(scalers[0].get_scale() < scale)
        assert scalers[0].get_scale() == scalers[1].get_scale()
        assert torch.equal(parameters(policy), before) == skipped[-1]
        # Adam divides by a gradient's size, so rounding of the smallest ones moves a weight by up to the learning rate.
        assert (parameters(policy) - parameters(plain)).norm() <= 0.01 * parameters(plain).norm()
    first_taken = skipped.index(False)
    assert first_taken > 0
    assert len(skipped) - sum(skipped) > 4
    assert any(skipped[first_taken:])


def parameters(policy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in policy.trained_parameters()])
