from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rl_lightning.policy.logprobs import chunked_log_probs


def case(dtype=torch.float32, tokens=37, width=16, vocabulary=101):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(vocabulary, width, generator=generator).to(dtype)
    return hidden, head, torch.randint(vocabulary, (tokens,), generator=generator)


def plain(hidden, head, targets, temperature):
    log_probs = ((hidden @ head.T).float() / temperature).log_softmax(dim=-1)
    return log_probs.gather(1, targets[:, None]).squeeze(1), -(log_probs.exp() * log_probs).sum(dim=1)


@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_and_gradients_equal_the_plain_ones_for_every_chunk(chunk, temperature):
    (hidden, head, targets), (theirs, _, _) = case(), case()
    logps, entropy = chunked_log_probs(hidden, head, targets, temperature, chunk)
    expected_logps, expected_entropy = plain(theirs, head, targets, temperature)
    assert torch.allclose(logps, expected_logps, atol=1e-5)
    assert torch.allclose(entropy, expected_entropy, atol=1e-5)
    upstream = torch.linspace(-2, 3, len(logps))
    (logps * upstream).sum().backward()
    (expected_logps * upstream).sum().backward()
    assert (hidden.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()


@pytest.mark.parametrize("chunk", [5, 1000])
def test_the_entropys_gradient_equals_the_plain_one_where_it_is_asked_for(chunk):
    (hidden, head, targets), (theirs, _, _) = case(), case()
    down, up = torch.linspace(1, -1, 37), torch.linspace(-2, 3, 37)
    logps, entropy = chunked_log_probs(hidden, head, targets, 0.6, chunk, of_entropy=True)
    (logps * down + entropy * up).sum().backward()
    expected_logps, expected_entropy = plain(theirs, head, targets, 0.6)
    (expected_logps * down + expected_entropy * up).sum().backward()
    assert (hidden.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()
    assert not chunked_log_probs(hidden, head, targets)[1].requires_grad


def test_gradients_pass_the_numerical_check():
    hidden, head, targets = case(torch.float64, tokens=5)
    # The log-probs are float32 by contract, so the check is done at a width that float32 can resolve.
    assert torch.autograd.gradcheck(
        lambda h: chunked_log_probs(h, head, targets, 0.8, 2)[0].double(), hidden, eps=1e-2, atol=2e-3, rtol=2e-2
    )


def test_results_are_float32_in_bfloat16_models():
    hidden, head, targets = case(torch.bfloat16)
    logps, entropy = chunked_log_probs(hidden, head, targets)
    assert logps.dtype == entropy.dtype == torch.float32
    logps.sum().backward()
    assert hidden.grad.dtype == torch.bfloat16


class LargestProduct(TorchDispatchMode):
    """The most rows of any matrix product as wide as the vocabulary, and how many products there were."""

    rows, count = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.mm.out) and 101 in (*args[0].shape, *args[1].shape):
            self.rows, self.count = max(self.rows, len(out)), self.count + 1
        return out


def test_the_frozen_head_gets_no_gradient_no_chunk_is_larger_than_asked_and_nothing_is_done_twice():
    hidden, head, targets = case()
    head.requires_grad_()
    with LargestProduct() as forward:
        logps = chunked_log_probs(hidden, head, targets, chunk=8)[0]
    with LargestProduct() as backward:
        logps.sum().backward()
    assert head.grad is None
    assert (forward.rows, forward.count) == (8, 10)  # five chunks: their logits, and the slope of their log-probs
    assert backward.count == 0
    with LargestProduct() as without:
        chunked_log_probs(hidden.detach(), head, targets, chunk=8)
    assert without.count == 5


def test_a_token_that_is_nearly_certain_keeps_its_small_gradient_in_16_bits():
    """The slope is a difference of nearly equal vectors; taken after rounding it would be noise."""
    head = torch.eye(16, dtype=torch.bfloat16)
    hidden = torch.zeros(1, 16, dtype=torch.bfloat16)
    hidden[0, 3] = 12.0
    hidden.requires_grad_()
    chunked_log_probs(hidden, head, torch.tensor([3]))[0].sum().backward()
    exact = torch.eye(16)[3] - (hidden.detach().float() @ head.float().T).softmax(-1)[0]
    assert torch.allclose(hidden.grad[0].float(), exact, rtol=0.01, atol=0)


def test_no_tokens_are_no_problem():
    logps, entropy = chunked_log_probs(torch.zeros(0, 4, requires_grad=True), torch.zeros(7, 4), torch.zeros(0).long())
    assert logps.shape == entropy.shape == (0,)
