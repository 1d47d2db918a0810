"""The policy's weights as a checkpoint without adapters and quantisation, which another engine can load."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rl_lightning.policy import Policy
from rl_lightning.policy.lora import dense_weight, dithered

_FILE_BYTES = 2 * 10**9
"""Weights are written in files of about this size, of which one at a time is held in memory."""


@torch.no_grad()
def dense_weights(policy: Policy, merged: bool) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the model by its name in a checkpoint, in the compute dtype: 4-bit weights dequantised, tied ones once, and
    embeddings without the tokens that the tokenizer has no words for, so that these are never sampled.

    Args:
        policy: the policy; merged weights are the same, to the last bit, as those that `LocalEngine` samples from.
        merged: whether adapters are added to the weights that they adapt, or left out.
    """
    base = policy.base
    of_words = [base.get_input_embeddings().weight, base.get_output_embeddings().weight]
    for name, weight in base.named_parameters():
        parent, _, own = name.rpartition(".")
        module, adapted = base.get_submodule(parent), parent.endswith(".base_layer")
        if ".lora_" in name:
            continue
        dense = dense_weight(module) if own == "weight" and isinstance(module, nn.Linear) else weight
        if adapted:
            parent = parent.removesuffix(".base_layer")
            if merged and own == "weight":
                delta = base.get_submodule(parent).get_delta_weight("default")
                dense = dithered(dense + delta, policy.compute_dtype)
        if any(weight is each for each in of_words):
            dense = dense[: policy.head.words]
        yield f"{parent}.{own}", dense.detach().to(policy.compute_dtype)


def write_model(policy: Policy, merged: bool, directory: Path) -> None:
    """Write a model directory, config and safetensors, without a tokenizer.

    Args:
        policy: the policy.
        merged: see `dense_weights`.
        directory: an empty directory.
    """
    base = policy.base
    config: Any = copy.deepcopy(base.config)
    config.architectures, config.dtype = [type(base).__name__], policy.compute_dtype
    config.get_text_config().vocab_size = policy.head.words
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(directory)
    part: dict[str, Tensor] = {}
    for number, (name, weight) in enumerate(dense_weights(policy, merged)):
        part[name] = weight.contiguous()
        if sum(each.nbytes for each in part.values()) >= _FILE_BYTES:
            save_file(part, directory / f"model-{number:05}.safetensors", {"format": "pt"})
            part = {}
    if part:
        save_file(part, directory / "model.safetensors", {"format": "pt"})


def shared_model(policy: Policy, directory: Path) -> Path:
    """The directory of the policy's base without adapters, which is written where it is not there yet.

    Args:
        policy: the policy.
        directory: where to write it, under a name with a hash of all weights, by which a server of another model is recognised.
    """
    digest = hashlib.sha256()
    for name, weight in dense_weights(policy, merged=False):
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    base = Path(policy.config.model_name_or_path).name
    final = directory / f"{base}-{digest.hexdigest()[:12]}"
    if not final.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=directory) as temporary:
            (written := Path(temporary, final.name)).mkdir()
            write_model(policy, False, written)
            try:
                written.rename(final)
            except OSError:
                if not final.exists():  # another rank was first
                    raise
    return final
