"""The losses against TRL's own code. Optional, for the peer is an extra."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest
import torch

from rl_lightning.objective import Objective, Tokens, policy_loss, token_weights
from tests.objective.test_loss import MASK, ROWS

TRLS = {
    "grpo": (Objective(loss_type="grpo", beta=0.05), {"loss_type": "grpo", "beta": 0.05}),
    "dr_grpo": (Objective(loss_type="dr_grpo"), {"loss_type": "dr_grpo"}),
    "bnpo": (Objective(loss_type="bnpo"), {"loss_type": "bnpo"}),
    "dapo": (Objective(), {"loss_type": "dapo"}),
    "two-sided": (Objective(delta=1.5), {"loss_type": "dapo", "delta": 1.5}),
    "gspo": (Objective(surrogate="gspo", loss_type="grpo"), {"loss_type": "grpo", "level": "sequence"}),
    "cispo": (Objective(surrogate="cispo"), {"loss_type": "cispo", "epsilon_high": 1.28}),  # there it is the cap itself
    "sapo": (Objective(surrogate="sapo", loss_type="grpo"), {"loss_type": "sapo"}),
    "unbiased KL": (
        Objective(beta=0.1, kl_unbiased_gradient=True),
        {"loss_type": "dapo", "beta": 0.1, "unbiased": True},
    ),
}


def trl_loss(
    logps,
    old,
    ref,
    advantages,
    mask,
    *,
    loss_type,
    beta=0.0,
    delta=None,
    epsilon_high=0.28,
    level="token",
    unbiased=False,
):
    """The trainer's own method on these numbers; what of the trainer it does not need for them is a stand-in."""
    trl = pytest.importorskip("trl", reason="needs the extra [bench]")
    trainer = MagicMock(
        loss_type=loss_type,
        beta=beta,
        epsilon_low=0.2,
        epsilon_high=epsilon_high,
        importance_sampling_level=level,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        max_completion_length=10,
        current_gradient_accumulation_steps=1,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
    )
    trainer.args.delta, trainer.args.use_bias_correction_kl, trainer.args.steps_per_generation = delta, unbiased, 1
    trainer.args.sapo_temperature_pos, trainer.args.sapo_temperature_neg = 1.0, 1.05
    trainer.accelerator.num_processes = 1
    trainer._get_per_token_logps_and_entropies.return_value = logps, torch.zeros_like(logps), None
    trainer.accelerator.gather.side_effect = lambda value: value
    ids = torch.zeros(mask.shape, dtype=torch.int64)
    inputs = {"prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask.int()}
    inputs |= {"advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": ref}
    return trl.GRPOTrainer._compute_loss(trainer, None, inputs | {"num_items_in_batch": mask.sum()})


@pytest.mark.parametrize("name", TRLS)
def test_losses_and_gradients_equal_trls(name):
    """On random numbers, in one micro-batch: beyond that it normalises otherwise. Optional, for the peer is an extra."""
    objective, settings = TRLS[name]
    generator = torch.Generator().manual_seed(9)
    old, noise, ref = (torch.randn(3, *MASK.shape, generator=generator, dtype=torch.float64) * 0.4).unbind()
    advantages = torch.tensor([1.0, -0.7, 0.4], dtype=torch.float64)
    ours = (old + noise).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    expected = trl_loss(theirs, old, old + ref, advantages, MASK, **settings)
    expected.backward()
    weights = token_weights(MASK, objective.loss_type, 10).double()
    each, ref_logps = advantages[:, None].expand(MASK.shape), (old + ref)[MASK] if objective.beta else None
    tokens = Tokens(ours[MASK], old[MASK], each[MASK], weights[MASK], ROWS[MASK], ref_logps=ref_logps)
    out = policy_loss(tokens, objective)
    out.loss.backward()
    assert torch.allclose(out.loss, expected, rtol=1e-6)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)
    assert ours.grad[MASK].abs().sum() > 0
