"""The four losses against values worked out by hand and against a plain implementation of the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch

from rl_lightning.objective import policy_loss, token_weights

MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)


def flat_loss(logps, old, advantages, weights, mask=MASK, **kwargs):
    per_token = advantages[:, None].expand_as(logps)
    return policy_loss(logps[mask], old[mask], per_token[mask], weights[mask], 0.2, 0.28, **kwargs)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        # rows of 2, 4 and 1 tokens, N = 3, 7 tokens in all, length limit 10
        ("grpo", [1 / 6, 1 / 12, 1 / 3]),
        ("dr_grpo", [1 / 30, 1 / 30, 1 / 30]),
        ("dapo", [1 / 7, 1 / 7, 1 / 7]),
        ("bnpo", [1 / 7, 1 / 7, 1 / 7]),
    ],
)
def test_weights_are_worked_out_by_hand(loss_type, expected):
    weights = token_weights(MASK, loss_type, max_new_tokens=10)
    assert torch.allclose(weights, torch.tensor(expected)[:, None] * MASK)


def test_truncated_rows_weigh_nothing():
    counted = torch.tensor([True, False, True])
    assert torch.allclose(token_weights(MASK, "dapo", 10, counted).sum(dim=1), torch.tensor([2 / 3, 0, 1 / 3]))
    assert torch.allclose(token_weights(MASK, "grpo", 10, counted).sum(dim=1), torch.tensor([1 / 3, 0, 1 / 3]))


def test_surrogate_is_worked_out_by_hand():
    """ratio 2 is clipped to 1.28 for a good token and not for a bad one; ratio 0.5 the other way round."""
    logps = torch.log(torch.tensor([2.0, 2.0, 0.5, 0.5])).requires_grad_()
    out = policy_loss(logps, torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.full((4,), 0.25), 0.2, 0.28)
    assert math.isclose(out.loss.item(), -0.25 * (1.28 - 2.0 + 0.5 - 0.8), rel_tol=1e-6)
    out.loss.backward()
    assert torch.allclose(logps.grad, torch.tensor([0.0, 0.5, -0.125, 0.0]))  # d ratio / d logp = ratio
    assert (int(out.metrics["clipped_high"]), int(out.metrics["clipped_low"])) == (1, 1)


def test_kl_is_worked_out_by_hand_and_pulls_towards_the_base():
    logps = torch.tensor([math.log(0.5)], requires_grad=True)
    ref = torch.tensor([math.log(0.25)])
    out = policy_loss(logps, logps.detach(), torch.zeros(1), torch.ones(1), 0.2, 0.28, ref_logps=ref, beta=0.1)
    assert math.isclose(out.loss.item(), 0.1 * (0.5 + math.log(2) - 1), rel_tol=1e-6)
    out.loss.backward()
    assert logps.grad.item() > 0  # gradient descent makes the token less likely, as in the base


def plain_loss(loss_type, logps, old, advantages, mask, limit, ref, beta):
    """Token by token, as in the papers; shares nothing with the code under test."""
    rows, total = [], 0
    for n in range(len(mask)):
        terms = []
        for t in range(mask.shape[1]):
            if mask[n, t]:
                ratio = torch.exp(logps[n, t] - old[n, t])
                clipped = torch.clip(ratio, 0.8, 1.28)
                kl = torch.exp(ref[n, t] - logps[n, t]) - (ref[n, t] - logps[n, t]) - 1
                terms.append(-torch.min(ratio * advantages[n], clipped * advantages[n]) + beta * kl)
        rows.append(torch.stack(terms))
        total += len(terms)
    if loss_type == "grpo":
        return sum(row.mean() for row in rows) / len(rows)
    if loss_type == "dr_grpo":
        return sum(row.sum() for row in rows) / (len(rows) * limit)
    return sum(row.sum() for row in rows) / total


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo"])
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_losses_and_gradients_equal_a_plain_implementation(loss_type, beta):
    generator = torch.Generator().manual_seed(0)
    old, ref, advantages = (torch.randn(s, generator=generator) for s in ((3, 4), (3, 4), (3,)))
    ours = (old + 0.4 * torch.randn((3, 4), generator=generator)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    weights = token_weights(MASK, loss_type, 10)
    out = flat_loss(ours, old, advantages, weights, ref_logps=ref[MASK] if beta else None, beta=beta)
    out.loss.backward()
    plain = plain_loss(loss_type, theirs, old, advantages, MASK, 10, ref, beta)
    plain.backward()
    assert torch.allclose(out.loss, plain, rtol=1e-5)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_first_update_has_ratio_one_and_the_policy_gradient():
    """With old = new the gradient of a token is -weight x advantage, whatever the clipping."""
    logps = torch.randn(5, requires_grad=True)
    advantages, weights = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]), torch.rand(5)
    policy_loss(logps, logps.detach(), advantages, weights, 0.2, 0.28).loss.backward()
    assert torch.allclose(logps.grad, -weights * advantages)
