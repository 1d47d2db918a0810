"""Full fine-tuning: all weights of a text model are trained, in float32 whatever the model computes in.

An update of 1e-6 would be lost in the rounding of 16 bits. So a model that computes in 16 bits has master weights in float32: the
optimizer changes these, the model's own weights are rounded from them, and each gradient is added to the master's as soon as it is
there, so that the gradients of many micro-batches are summed in float32 too (arXiv 1710.03740).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rl_lightning.types import UserError

WEIGHTS_FILE = "model.safetensors"

SAMPLE = 2**18
"""Weights by which it is measured how far all of them have moved, at most."""


def train_all(base: Any, dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """Have all weights of a model's decoder and output head trained, and the model compute in `dtype`. What does not take part in
    text, such as a vision tower, stays frozen.

    Args:
        base: a causal language model, loaded in float32.
        dtype: what it is to compute in.

    Returns:
        what an optimizer changes, in float32, by name in the model: its own parameters, or with a `dtype` of 16 bits their
        masters, which `round_into` rounds into it.
    """
    parts = base.get_decoder(), base.get_output_embeddings()
    inside = {id(parameter) for part in parts for parameter in part.parameters()}
    trained = {}
    for name, weight in base.named_parameters():
        weight.requires_grad_(id(weight) in inside)
        if id(weight) in inside:
            trained[name] = weight if dtype == torch.float32 else nn.Parameter(weight.detach())
        if dtype != torch.float32:
            weight.data = weight.data.to(dtype)
            if id(weight) in inside:
                weight.register_post_accumulate_grad_hook(partial(_hand_over, trained[name]))
    return trained


def _hand_over(master: nn.Parameter, weight: Tensor) -> None:
    """Add a weight's gradient to its master's, and free it."""
    assert weight.grad is not None
    if master.grad is None:
        master.grad = weight.grad.float()
    else:
        master.grad += weight.grad
    weight.grad = None


@torch.no_grad()
def round_into(weights: Sequence[Tensor], masters: Sequence[Tensor]) -> None:
    """Set a model's weights to its masters, rounded to its dtype; nothing to do where they are the same tensors."""
    if weights[0] is not masters[0]:
        torch._foreach_copy_(list(weights), list(masters))


def save_model(model: Any, tokenizer: Any, trained: Mapping[str, Tensor], directory: Path) -> None:
    """Write a model's directory, which transformers' `from_pretrained` loads, with the trained weights in float32."""
    master_of = {id(model.get_parameter(name)): master for name, master in trained.items()}
    own = model.state_dict(keep_vars=True)  # a tied head is there by both of its names
    state = {name: master_of.get(id(weight), weight).detach() for name, weight in own.items()}
    model.save_pretrained(directory, state_dict=state, save_original_format=False, max_shard_size="1TB")
    tokenizer.save_pretrained(directory)


@torch.no_grad()
def load_weights(trained: Mapping[str, Tensor], directory: Path) -> None:
    """Read the trained weights that `save_model` has written.

    Raises:
        UserError: they cannot be read, or are another model's.
    """
    try:
        found = load_file(directory / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"ckpt_path: {directory / WEIGHTS_FILE} cannot be read ({' '.join(str(error).split())})"
        ) from error
    wrong = [name for name, weight in trained.items() if name not in found or found[name].shape != weight.shape]
    if wrong:
        raise UserError(
            f"ckpt_path: the checkpoint's weights do not fit this model: {len(wrong)} of {len(trained)} tensors differ, the first "
            f"is {wrong[0]}; use the model.policy section that it was trained with"
        )
    for name, weight in trained.items():
        weight.copy_(found[name])


def sample_of(trained: Mapping[str, Tensor]) -> Tensor:
    """A copy of every k-th of all trained weights, at most `SAMPLE` of them and at least one of each tensor."""
    every = -(-sum(weight.numel() for weight in trained.values()) // SAMPLE)
    return torch.cat([weight.detach().flatten()[::every] for weight in trained.values()])
