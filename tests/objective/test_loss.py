"""The losses of the family against values worked out by hand and against a plain implementation of the papers' formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rl_lightning.objective import CISPO, GSPO, SAPO, Clip, LossInputs, Objective, policy_loss, token_weights
from rl_lightning.objective.kl import kl
from rl_lightning.types import UserError

MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
ROWS = torch.arange(3)[:, None].expand_as(MASK)
PLAIN = Objective(surrogate=Clip(epsilon=0.2, epsilon_high=0.28))


def one_row(logps, old, advantages, weights, **more) -> LossInputs:
    return LossInputs(logps, old, advantages, weights, torch.zeros(len(logps), dtype=torch.int64), **more)


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


def test_the_clip_is_worked_out_by_hand():
    """ratio 2 is clipped to 1.28 where the advantage is positive and not where it is negative; ratio 0.5 the other way round."""
    logps = torch.log(torch.tensor([2.0, 2.0, 0.5, 0.5])).requires_grad_()
    tokens = one_row(logps, torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.full((4,), 0.25))
    out = policy_loss(tokens, PLAIN)
    assert math.isclose(out.loss.item(), -0.25 * (1.28 - 2.0 + 0.5 - 0.8), rel_tol=1e-6)
    out.loss.backward()
    assert torch.allclose(logps.grad, torch.tensor([0.0, 0.5, -0.125, 0.0]))  # d ratio / d logp = ratio
    assert (int(out.metrics["clipped_high"]), int(out.metrics["clipped_low"])) == (1, 1)


def test_the_two_sided_clip_bounds_the_ratio_of_a_token_with_negative_advantage():
    logps = torch.log(torch.tensor([9.0, 2.0])).requires_grad_()
    tokens = one_row(logps, torch.zeros(2), torch.tensor([-1.0, -1.0]), torch.ones(2))
    out = policy_loss(tokens, replace(PLAIN, surrogate=Clip(delta=4.0)))
    assert math.isclose(out.loss.item(), 4.0 + 2.0, rel_tol=1e-6)
    out.loss.backward()
    assert torch.allclose(logps.grad, torch.tensor([0.0, 2.0]))


@pytest.mark.parametrize(
    ("surrogate", "low", "high"),
    [(Clip(), 1, 1), (Clip(delta=4.0), 1, 2), (CISPO(), 0, 3), (SAPO(), 0, 0)],
    ids=["clip", "two-sided", "CISPO", "SAPO"],
)
def test_tokens_that_were_clipped_are_counted(surrogate, low, high):
    ratios, advantages = torch.tensor([2.0, 2.0, 0.5, 0.5, 9.0]), torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0])
    tokens = one_row(ratios.log(), torch.zeros(5), advantages, torch.ones(5))
    found = policy_loss(tokens, Objective(surrogate=surrogate)).metrics
    assert (int(found["clipped_low"]), int(found["clipped_high"])) == (low, high)


def test_kl_is_worked_out_by_hand_and_pulls_towards_the_base():
    logps = torch.tensor([math.log(0.5)], requires_grad=True)
    ref = torch.tensor([math.log(0.25)])
    tokens = one_row(logps, logps.detach(), torch.zeros(1), torch.ones(1), ref_logps=ref)
    out = policy_loss(tokens, replace(PLAIN, beta=0.1))
    assert math.isclose(out.loss.item(), 0.1 * (0.5 + math.log(2) - 1), rel_tol=1e-6)
    out.loss.backward()
    assert logps.grad.item() > 0  # gradient descent makes the token less likely, as in the base


def plain_term(o: Objective, ratio, advantage, logp):
    """What the update raises of one token, by the papers."""
    s, good = o.surrogate, advantage > 0
    if isinstance(s, CISPO):
        return min(float(ratio.detach()), 1 + s.epsilon_high) * advantage * logp
    if isinstance(s, SAPO):
        steep = s.positive if good else s.negative
        return 4 / steep / (1 + torch.exp(-steep * (ratio - 1))) * advantage
    free = ratio if s.delta is None or ratio < s.delta else torch.full_like(ratio, s.delta)
    if good:
        term = advantage * (free if ratio < 1 + s.epsilon_high else 1 + s.epsilon_high)
    else:
        term = advantage * (free if ratio > 1 - s.epsilon else 1 - s.epsilon)
    return term + 0 * ratio  # a constant has a gradient too: none


def plain_loss(o: Objective, logps, old, advantages, sampling, ref, mask=MASK, limit=10):
    """Completion by completion and token by token, as in the papers; shares nothing with the code under test."""
    rows, total = [], 0
    for n in range(len(mask)):
        length = int(mask[n].sum())
        mean = sum(logps[n, t] - old[n, t] for t in range(length)) / length
        terms = []
        for t in range(length):
            ratio = torch.exp(mean if isinstance(o.surrogate, GSPO) else logps[n, t] - old[n, t])
            term = plain_term(o, ratio, advantages[n], logps[n, t])
            d = ref[n, t] - logps[n, t]
            pull = {"k1": -d, "k2": d * d / 2, "k3": d.exp() - d - 1}[o.kl_estimator]
            if o.kl_unbiased_gradient:
                pull = pull * torch.exp(logps[n, t] - old[n, t])
            apart = math.exp(float(old[n, t] - sampling[n, t]))
            if o.importance_correction == "none":
                apart = 1.0
            elif o.importance_correction == "truncated":
                apart = min(apart, o.importance_cap)
            elif not 1 / o.importance_cap <= apart <= o.importance_cap:
                apart = 0.0
            terms.append(apart * (o.beta * pull - term))
        rows.append(torch.stack(terms))
        total += length
    if o.loss_type == "grpo":
        return sum(row.mean() for row in rows) / len(rows)
    if o.loss_type == "dr_grpo":
        return sum(row.sum() for row in rows) / (len(rows) * limit)
    return sum(row.sum() for row in rows) / total


VARIANTS = {
    **{
        f"{loss}{beta}": Objective(loss_type=loss, beta=beta)
        for loss in ("grpo", "dr_grpo", "dapo", "bnpo")
        for beta in (0.0, 0.05)
    },
    "two-sided": Objective(surrogate=Clip(delta=1.5)),
    "GSPO": Objective(surrogate=GSPO(), loss_type="grpo"),
    "GSPO, two-sided": Objective(surrogate=GSPO(delta=1.3), loss_type="grpo"),
    "CISPO": Objective(surrogate=CISPO()),
    "SAPO": Objective(surrogate=SAPO(negative=1.4)),
    "k1, unbiased": Objective(beta=0.1, kl_estimator="k1", kl_unbiased_gradient=True),
    "k2": Objective(beta=0.1, kl_estimator="k2"),
    "k3, unbiased": Objective(beta=0.1, kl_unbiased_gradient=True),
    "truncated weights": Objective(importance_correction="truncated", importance_cap=1.2),
    "masked weights": Objective(importance_correction="masked", importance_cap=1.2),
    "everything": Objective(
        surrogate=GSPO(),
        loss_type="dr_grpo",
        beta=0.1,
        kl_estimator="k2",
        importance_correction="truncated",
        importance_cap=1.1,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_and_gradients_equal_a_plain_implementation(name):
    objective = VARIANTS[name]
    generator = torch.Generator().manual_seed(4)
    shape = (20, *MASK.shape)
    mask, rows = MASK.repeat(20, 1), torch.arange(60)[:, None].expand(60, 4)

    def drawn(*size, scale=1.0):
        return (scale * torch.randn(size, generator=generator, dtype=torch.float64)).reshape(-1, *size[2:])

    old, advantages = drawn(*shape), drawn(20, 3)
    sampling, ref = old + drawn(*shape, scale=0.2), old + drawn(*shape, scale=0.5)
    ours = (old + drawn(*shape, scale=0.4)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    weights = token_weights(mask, objective.loss_type, 10).double()
    each = advantages[:, None].expand(60, 4)
    out = policy_loss(
        LossInputs(
            ours[mask],
            old[mask],
            each[mask],
            weights[mask],
            rows[mask],
            sampling[mask],
            ref[mask] if objective.beta else None,
        ),
        objective,
    )
    out.loss.backward()
    plain = plain_loss(objective, theirs, old, advantages, sampling, ref, mask)
    plain.backward()
    # Weights are float32, whatever the log-probs are.
    assert torch.allclose(out.loss, plain, rtol=1e-6)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)
    assert ours.grad[mask].abs().sum() > 0


@pytest.mark.parametrize("surrogate", [Clip(), CISPO(), SAPO()], ids=lambda s: type(s).__name__)
def test_at_the_first_update_the_gradient_is_the_policy_gradient(surrogate):
    """With old = new the gradient of a token is -weight x advantage, whatever the surrogate."""
    logps = torch.randn(5, requires_grad=True)
    advantages, weights = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]), torch.rand(5)
    policy_loss(one_row(logps, logps.detach(), advantages, weights), Objective(surrogate=surrogate)).loss.backward()
    assert torch.allclose(logps.grad, -weights * advantages)


def test_gspo_spreads_the_gradient_over_the_completion():
    logps = torch.randn(4, requires_grad=True)
    rows, weights = torch.tensor([7, 7, 7, 3]), torch.tensor([0.1, 0.2, 0.3, 0.5])
    tokens = LossInputs(logps, logps.detach(), torch.tensor([1.0, 1.0, 1.0, -2.0]), weights, rows)
    policy_loss(tokens, Objective(surrogate=GSPO())).loss.backward()
    assert torch.allclose(logps.grad, torch.tensor([-0.2, -0.2, -0.2, 1.0]))


def test_the_entropy_is_raised_by_its_bonus_and_weight():
    entropy, weights = torch.tensor([0.5, 2.0], requires_grad=True), torch.tensor([0.25, 0.5])
    tokens = one_row(torch.zeros(2), torch.zeros(2), torch.zeros(2), weights, entropy=entropy)
    out = policy_loss(tokens, Objective(entropy_bonus=0.1))
    assert math.isclose(out.loss.item(), -0.1 * (0.125 + 1.0), rel_tol=1e-6)
    out.loss.backward()
    assert torch.allclose(entropy.grad, -0.1 * weights)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_estimators_and_their_gradients_on_average(estimator):
    """Over all of a distribution of four tokens: k1 and k3 are the KL; with the ratio before them their gradient is the KL's."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(4, generator=generator, dtype=torch.float64).log_softmax(0)
    logps = logits.log_softmax(0)
    probs, true = logps.exp().detach(), (logps.exp() * (logps - ref)).sum()
    (expected,) = torch.autograd.grad(true, logits, retain_graph=True)
    estimates = kl(logps, ref, estimator)
    plain, unbiased = (probs * estimates).sum(), (probs * estimates * torch.exp(logps - logps.detach())).sum()
    of_plain, of_unbiased = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (plain, unbiased))
    if estimator != "k2":
        assert torch.isclose(plain, true)
        assert torch.allclose(of_unbiased, expected)
    assert torch.allclose(of_plain, {"k1": torch.zeros(4).double(), "k2": expected}.get(estimator, of_plain))
    if estimator == "k3":
        assert not torch.allclose(of_plain, expected, rtol=0.1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"baseline": "leave_one_out"}, "times G / \\(G - 1\\)"),
        ({"baseline": "batch"}, "no measure"),
        ({"beta": 0.1, "kl_estimator": "k1"}, "zero on average"),
        ({"beta": 0.1, "kl_estimator": "k2", "kl_unbiased_gradient": True}, "the true gradient by itself"),
        ({"overlong_buffer": 9, "reward_aggregation": "normalize_then_sum"}, "a whole reward's worth"),
        ({"importance_cap": 1.0}, "above 1"),
        ({"top_entropy": 0.0}, "above 0 and at most 1"),
        ({"top_entropy": 0.2, "surrogate": GSPO()}, "reaches every token"),
        ({"reward_aggregation": "normalize_then_sum", "scale_advantages": "none"}, "its group's deviation"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_with_the_reason(settings, reason):
    with pytest.raises(UserError, match=reason):
        Objective(**settings)


@pytest.mark.parametrize(
    ("surrogate", "settings", "reason"),
    [
        (Clip, {"epsilon": 0.0}, "surrogate.epsilon: .* above 0 and below 1"),
        (Clip, {"epsilon": 1.0}, "surrogate.epsilon: .* above 0 and below 1"),
        (Clip, {"epsilon_high": 0.0}, "surrogate.epsilon_high: .* above 0"),
        (Clip, {"delta": 1.2}, "surrogate.delta: .* above 1 \\+ epsilon_high, which is 1.28"),
        (GSPO, {"delta": 1.2}, "surrogate.delta: .* above 1 \\+ epsilon_high, which is 1.28"),
        (CISPO, {"epsilon_high": 0.0}, "surrogate.epsilon_high: .* above 0"),
        (SAPO, {"positive": 0.0}, "surrogate.positive: .* above 0"),
        (SAPO, {"negative": -1.0}, "surrogate.negative: .* above 0"),
    ],
    ids=str,
)
def test_a_surrogates_settings_out_of_range_are_refused(surrogate, settings, reason):
    with pytest.raises(UserError, match=reason):
        surrogate(**settings)


@pytest.mark.parametrize("surrogate", [CISPO, SAPO])
def test_a_surrogate_that_does_not_clip_from_below_has_no_limit_to_set(surrogate):
    with pytest.raises(TypeError, match="delta"):
        surrogate(delta=2.0)
