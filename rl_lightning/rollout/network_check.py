"""Whether a network written out for decoding computes what the policy does: each part, for the inputs of one forward pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.rollout.network import Network, attend_whole_rows
from rl_lightning.rollout.probe import Probe

TOLERANCE = {torch.float32: 1e-3}
"""Largest error of a layer's output for a token, relative to what the layer adds to its input, at which a network counts as right;
beside the rounding of the token's largest element."""

TOLERANCE_16_BITS = 0.05
"""The same in 16 bits: it is at most 0.032 for most tokens in SmolLM2's 30 layers, and another architecture gives at least 0.16."""

STEEP_TOKENS, STEEP_TOLERANCE = 1 / 16, 0.5
"""Share of the tokens that may differ by more in 16 bits, and by how much: a layer that makes a token's huge element is so steep
for it that rounding alone gives 0.08 to 0.17 (one token in SmolLM2's layers 2 and 11, with adapters; the median is 0.008)."""


@torch.no_grad()
def first_difference(network: Network, seen: Probe, dtype: torch.dtype) -> str | None:
    """The first part of the network that does not give what the policy's gives for the same input, None where all do.

    Args:
        network: the network, refreshed.
        seen: what the policy computes.
        dtype: dtype in which both compute.
    """
    network.set_max_length(int(seen.positions[-1]) + 1)
    expected = [*seen.inputs, seen.outputs[-1]]
    if differs(F.embedding(seen.ids, network.embedding), expected[0], expected[0], dtype):
        return "other embeddings"
    for number, (x, theirs) in enumerate(zip(seen.inputs, seen.outputs, strict=True)):
        ours, theirs = x.clone(), theirs.to(x.device)  # a stage's last output has gone on to the next device
        network.add_layer(number, ours, network.tables(seen.positions[None], x.device), attend_whole_rows)
        if differs(ours, theirs, theirs - x, dtype):
            return f"layer {number} computes something else"
    last = network.rms_norm(expected[-1], network.norm)
    return "another last norm" if differs(last, seen.last, seen.last, dtype) else None


def differs(ours: Tensor, theirs: Tensor, scale: Tensor, dtype: torch.dtype) -> bool:
    """Whether more than rounding in `dtype` lies between two results for the same tokens, (1, S, H), one of which is the policy's.

    Args:
        ours, theirs: the results.
        scale: (1, S, H), what the errors are relative to.
        dtype: dtype in which both were computed.
    """
    # Some models give a token one huge element (arXiv 2402.17762), whose rounding alone is larger than what a layer adds.
    rounding = torch.finfo(theirs.dtype).eps * theirs.float().abs().amax(dim=-1)
    error, size = (ours - theirs).float().norm(dim=-1), scale.float().norm(dim=-1)

    def within(tolerance: float) -> Tensor:
        return error <= tolerance * size + rounding  # NaN is not

    if dtype in TOLERANCE:
        return not bool(within(TOLERANCE[dtype]).all())
    beyond = int((~within(TOLERANCE_16_BITS)).sum())
    return beyond > STEEP_TOKENS * error.numel() or not bool(within(STEEP_TOLERANCE).all())
