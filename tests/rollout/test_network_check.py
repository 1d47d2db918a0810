"""What counts as rounding between two networks' results, and what as another computation."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.rollout.network_check import differs


def results(errors: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Results of 48 tokens, the first of which have relative errors of these sizes."""
    theirs = torch.nn.functional.normalize(torch.randn(1, 48, 256, generator=torch.Generator().manual_seed(0)), dim=-1)
    ours = theirs.clone()
    for token, error in enumerate(errors):
        ours[0, token] += error * theirs[0, 47 - token]
    return ours, theirs


@pytest.mark.parametrize(
    ("errors", "wrong"),
    [([0.03] * 48, False), ([0.2] * 3, False), ([0.2] * 4, True), ([0.8], True), ([float("nan")], True)],
)
def test_in_16_bits_only_single_tokens_may_be_further_than_the_rounding(errors, wrong):
    ours, theirs = results(errors)
    assert differs(ours, theirs, theirs, torch.bfloat16) is wrong


@pytest.mark.parametrize(("errors", "wrong"), [([5e-4] * 48, False), ([0.01], True)])
def test_in_32_bits_no_token_may(errors, wrong):
    ours, theirs = results(errors)
    assert differs(ours, theirs, theirs, torch.float32) is wrong
