"""Attention without a fused kernel: computed in pieces, it is what it is as a whole."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.policy import attention
from rl_lightning.policy.attention import AttentionKind, causal_mask, masked_attention

HEADS, WIDTH = 4, 11


@pytest.mark.parametrize("at_once", [1, HEADS * WIDTH * 4, HEADS * WIDTH * WIDTH * 2], ids=["query", "queries", "rows"])
@pytest.mark.parametrize("mask_of", ["all rows", "each row"])
def test_pieces_are_the_whole_and_so_are_their_gradients(mask_of, at_once, monkeypatch):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, heads, WIDTH, 8, dtype=torch.float64) for heads in (HEADS, 2, 2))
    kind = AttentionKind(0.3, softcap=2.0, sinks=torch.randn(HEADS, dtype=torch.float64))
    mask = causal_mask(WIDTH, 5, query)
    if mask_of == "each row":
        mask = torch.stack([causal_mask(WIDTH, window, query) for window in (2, 5, None)])[:, None]
    results = []
    for scores in (10**9, at_once):
        monkeypatch.setattr(attention, "SCORES", scores)
        leaves = [each.clone().requires_grad_() for each in (query, key, value)]
        out = masked_attention(*leaves, mask, kind)
        with torch.no_grad():
            assert torch.equal(masked_attention(*leaves, mask, kind), out)
        results.append([out, *torch.autograd.grad(out.sin().sum(), leaves)])
    torch.testing.assert_close(results[1], results[0])
