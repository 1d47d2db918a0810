"""Tiled log-probs, entropies and their gradients against the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rl_lightning.policy.logprobs import tile_of, tiled_log_probs


def case(dtype=torch.float32, tokens=37, width=16, vocabulary=101):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(vocabulary, width, generator=generator).to(dtype)
    return hidden, head, torch.randint(vocabulary, (tokens,), generator=generator)


def plain(hidden, head, targets, temperature):
    log_probs = ((hidden @ head.T).float() / temperature).log_softmax(dim=-1)
    return log_probs.gather(1, targets[:, None]).squeeze(1), -(log_probs.exp() * log_probs).sum(dim=1)


TILES = [(1, 101), (5, 1), (36, 7), (37, 100), (1000, 1000), None]


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_and_gradients_equal_the_plain_ones_for_every_tile(tile, temperature):
    (hidden, head, targets), (theirs, _, _) = case(), case()
    logps, entropy = tiled_log_probs(hidden, head, targets, temperature, tile=tile)
    expected_logps, expected_entropy = plain(theirs, head, targets, temperature)
    assert torch.allclose(logps, expected_logps, atol=1e-5)
    assert torch.allclose(entropy, expected_entropy, atol=1e-5)
    upstream = torch.linspace(-2, 3, len(logps))
    (logps * upstream).sum().backward()
    (expected_logps * upstream).sum().backward()
    assert (hidden.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()


@pytest.mark.parametrize("tile", TILES)
def test_the_entropys_gradient_equals_the_plain_one_where_it_is_asked_for(tile):
    (hidden, head, targets), (theirs, _, _) = case(), case()
    down, up = torch.linspace(1, -1, 37), torch.linspace(-2, 3, 37)
    logps, entropy = tiled_log_probs(hidden, head, targets, 0.6, True, tile)
    (logps * down + entropy * up).sum().backward()
    expected_logps, expected_entropy = plain(theirs, head, targets, 0.6)
    (expected_logps * down + expected_entropy * up).sum().backward()
    assert (hidden.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()
    assert not tiled_log_probs(hidden, head, targets)[1].requires_grad


def test_the_entropys_gradient_in_16_bits_is_no_noise_where_the_distribution_is_flat():
    """There it is the small difference of means over tokens whose embeddings have something in common."""
    generator = torch.Generator().manual_seed(0)
    head = (torch.randn(4000, 32, generator=generator) * 0.1 + 1).bfloat16()
    hidden = (torch.randn(6, 32, generator=generator) * 0.1).bfloat16().requires_grad_()
    tiled_log_probs(hidden, head, torch.arange(6), 1.0, True, (4, 1000))[1].sum().backward()
    exact = hidden.detach().double().requires_grad_()
    log_probs = (exact @ head.double().T).log_softmax(dim=-1)
    (-(log_probs.exp() * log_probs).sum()).backward()
    assert (hidden.grad.double() - exact.grad).norm() <= 0.05 * exact.grad.norm()


def test_gradients_pass_the_numerical_check():
    hidden, head, targets = case(torch.float64, tokens=5)
    # The log-probs are float32 by contract, so the check is done at a width that float32 can resolve.
    assert torch.autograd.gradcheck(
        lambda h: tiled_log_probs(h, head, targets, 0.8, tile=(2, 40))[0].double(),
        hidden,
        eps=1e-2,
        atol=2e-3,
        rtol=2e-2,
    )


def test_results_are_float32_in_bfloat16_models():
    hidden, head, targets = case(torch.bfloat16)
    logps, entropy = tiled_log_probs(hidden, head, targets)
    assert logps.dtype == entropy.dtype == torch.float32
    logps.sum().backward()
    assert hidden.grad.dtype == torch.bfloat16


class LargestLogits(TorchDispatchMode):
    """The largest result of a product with the head, and how many products there were."""

    most, count = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.mm.out):
            self.most, self.count = max(self.most, out.numel()), self.count + 1
        return out


def test_the_frozen_head_gets_no_gradient_no_tile_is_larger_than_asked_and_nothing_is_done_twice():
    hidden, head, targets = case()
    with LargestLogits() as forward:
        logps = tiled_log_probs(hidden, head, targets, tile=(8, 50))[0]
    with LargestLogits() as backward:
        logps.sum().backward()
    assert (forward.most, forward.count) == (
        8 * 50,
        30,
    )  # five chunks by three: their logits, and the expected embeddings
    assert backward.count == 0
    with LargestLogits() as without:
        tiled_log_probs(hidden.detach(), head, targets, tile=(8, 50))
    assert without.count == 15


def test_a_tile_is_as_large_for_every_vocabulary():
    assert tile_of(151_936) == (1024, 4096)
    assert tile_of(640) == (6553, 640)


@pytest.mark.parametrize("tile", TILES)
def test_a_token_that_is_nearly_certain_or_hopeless_has_finite_values(tile):
    """Where exponentials overflow or vanish: the target 200 above all others, and 200 below."""
    _, head, targets = case()
    direction = head[targets] / head[targets].norm(dim=1, keepdim=True) ** 2
    for sign in (200, -200):
        hidden = (sign * direction).requires_grad_()
        logps, entropy = tiled_log_probs(hidden, head, targets, 1.0, True, tile)
        exact = (hidden.detach().double() @ head.double().T).log_softmax(dim=-1)
        assert torch.allclose(logps.double(), exact.gather(1, targets[:, None])[:, 0], rtol=1e-4, atol=1e-12)
        assert torch.allclose(entropy.double(), -(exact.exp() * exact).sum(dim=1), rtol=1e-4, atol=1e-6)
        (logps + entropy).sum().backward()
        assert hidden.grad.isfinite().all()


def test_a_token_that_is_nearly_certain_keeps_its_small_gradient_in_16_bits():
    """The slope is a difference of nearly equal vectors; taken after rounding it would be noise."""
    head = torch.eye(16, dtype=torch.bfloat16)
    hidden = torch.zeros(1, 16, dtype=torch.bfloat16)
    hidden[0, 3] = 12.0
    hidden.requires_grad_()
    tiled_log_probs(hidden, head, torch.tensor([3]))[0].sum().backward()
    exact = torch.eye(16)[3] - (hidden.detach().float() @ head.float().T).softmax(-1)[0]
    assert torch.allclose(hidden.grad[0].float(), exact, rtol=0.01, atol=0)


def test_no_tokens_are_no_problem():
    logps, entropy = tiled_log_probs(torch.zeros(0, 4, requires_grad=True), torch.zeros(7, 4), torch.zeros(0).long())
    assert logps.shape == entropy.shape == (0,)


def exact_head_gradient(hidden, head, targets, temperature, softcap, words, up, down) -> torch.Tensor:
    """By plain autograd in float64: of the log-probs times `up`, plus the entropies times `down`."""
    head = head.detach().double().requires_grad_()
    logits = hidden.detach().double() @ head[:words].T
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    log_probs = (logits / temperature).log_softmax(dim=-1)
    logps = log_probs.gather(1, targets[:, None]).squeeze(1)
    (logps * up + -(log_probs.exp() * log_probs).sum(dim=1) * down).sum().backward()
    return head.grad


@pytest.mark.parametrize("tile", [(1, 101), (36, 7), (37, 100), None])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("entropy", [False, True])
def test_a_trained_heads_gradient_equals_the_plain_one(tile, softcap, entropy):
    """Of a vocabulary that ends before the head does."""
    hidden, head, targets = case()
    head, targets, words = head.requires_grad_(), targets.clamp(max=92), 93
    up, down = torch.linspace(-2, 3, 37), torch.linspace(1, -1, 37) if entropy else torch.zeros(37)
    settings = {"softcap": softcap, "words": words}
    logps, entropies = tiled_log_probs(hidden, head, targets, 0.6, entropy, tile, **settings)
    (logps * up).sum().backward(retain_graph=entropy)
    if entropy:
        (entropies * down).sum().backward()
    exact = exact_head_gradient(hidden, head, targets, 0.6, softcap, words, up.double(), down.double())
    assert (head.grad - exact).norm() <= 1e-6 * exact.norm()
    assert not head.grad[words:].any()
    alone = hidden.detach().requires_grad_()
    (tiled_log_probs(alone, head.detach(), targets, 0.6, entropy, tile, **settings)[0] * up).sum().backward()
    again = hidden.detach().requires_grad_()
    (tiled_log_probs(again, head, targets, 0.6, entropy, tile, **settings)[0] * up).sum().backward()
    assert torch.equal(alone.grad, again.grad)  # the hidden states' is the same whether the head is trained or not


def test_a_trained_head_learns_of_hidden_states_that_are_not_trained():
    hidden, head, targets = case()
    logps, entropies = tiled_log_probs(hidden.detach(), head.requires_grad_(), targets, 1.0, True)
    (logps + entropies).sum().backward()
    exact = exact_head_gradient(hidden, head, targets, 1.0, None, 101, 1.0, 1.0)
    assert (head.grad - exact).norm() <= 1e-6 * exact.norm()


def test_a_trained_heads_gradient_of_a_nearly_certain_token_is_exact_in_float32():
    """p rounds to 1 there, and 1 - p would be nothing or noise."""
    head, hidden = torch.eye(16).requires_grad_(), torch.zeros(1, 16)
    hidden[0, 3] = 20.0
    tiled_log_probs(hidden, head, torch.tensor([3]))[0].sum().backward()
    exact = exact_head_gradient(hidden, head, torch.tensor([3]), 1.0, None, 16, 1.0, 0.0)
    assert torch.allclose(head.grad.double(), exact, rtol=1e-5, atol=0)


def test_a_trained_heads_gradient_in_16_bits_is_summed_in_float32_and_has_tiles_of_logits_only():
    hidden, head, targets = case(torch.bfloat16, tokens=400)
    head.requires_grad_()
    with LargestLogits() as seen:
        tiled_log_probs(hidden, head, targets, tile=(8, 50))[0].sum().backward()
    assert seen.most <= max(8 * 50, 50 * 16)
    exact = exact_head_gradient(hidden, head, targets, 1.0, None, 101, 1.0, 0.0)
    assert head.grad.dtype == torch.bfloat16
    assert (head.grad.double() - exact).norm() <= 4e-3 * exact.norm()
