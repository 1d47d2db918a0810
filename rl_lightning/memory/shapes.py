"""Find a model's sizes from its config alone: it is built on the `meta` device, where tensors have a shape and no memory."""

from __future__ import annotations

import difflib
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from rl_lightning.policy.loading import EMBEDDED, resolve_name
from rl_lightning.types import UserError

_SHIPPED = Path(__file__).parents[1] / "assets" / "shapes.json"
"""The needed fields of the config.json of common models, so that a plan needs no network."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a causal language model.

    Attributes:
        layers: decoder layers.
        width: H, width of the hidden states.
        heads: number of query heads.
        kv_heads: number of key/value heads.
        head_width: width of each head.
        mlp_width: width of the MLP's inner states.
        vocabulary: V, number of vocabulary tokens.
        linear_weights: weights of the layers' linear modules, which 4-bit quantisation packs and LoRA adapts.
        other_weights: all other weights: embeddings, head, norms, biases.
        largest_linear: weights of the largest of these linear modules.
        lora_weights_per_rank: adapter weights per LoRA rank, which is the sum of inputs and outputs of all linear modules.
        linears_per_layer: number of linear modules per layer.
        norms_qk: whether queries and keys are normalised (Qwen3).
        fused_qkv: whether queries, keys and values come from one linear module (Phi-3).
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    vocabulary: int
    linear_weights: int
    other_weights: int
    largest_linear: int
    lora_weights_per_rank: int
    linears_per_layer: int
    norms_qk: bool
    fused_qkv: bool


@functools.cache
def model_shape(name: str) -> ModelShape:
    """The shape of a model, without loading it.

    Args:
        name: `tiny`, a directory with a config.json, or a hub name, whose config ships with the package or can be downloaded.

    Raises:
        UserError: the model's config cannot be read, or is not that of a causal language model.
    """
    shipped = known_models().get(name)
    try:
        if shipped is not None:
            return shape_of(AutoConfig.for_model(**shipped))
        return shape_of(AutoConfig.from_pretrained(resolve_name(name)))
    except (OSError, ValueError, AttributeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        near = ", ".join(difflib.get_close_matches(name, [*EMBEDDED, *known_models()], 3, cutoff=0))
        raise UserError(
            f"policy.model_name_or_path: the shape of {name!r} is not known here, and its config cannot be read: {reason}; "
            f"known without a network are {len(known_models())} models, the nearest by name: {near}"
        ) from error


@functools.cache
def known_models() -> dict[str, dict[str, Any]]:
    """Hub names whose configs ship with the package, with these configs."""
    return json.loads(_SHIPPED.read_text(encoding="utf-8"))


def shape_of(config: PretrainedConfig) -> ModelShape:
    """The shape of a model of this config."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    weights = [m.weight.numel() for m in linears.values()]
    heads = config.num_attention_heads
    return ModelShape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        mlp_width=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        linear_weights=sum(weights),
        other_weights=sum(p.numel() for p in model.parameters()) - sum(weights),
        largest_linear=max(weights),
        lora_weights_per_rank=sum(m.in_features + m.out_features for m in linears.values()),
        linears_per_layer=len(linears) // config.num_hidden_layers,
        norms_qk=any(n.endswith("q_norm") for n, _ in model.named_modules()),
        fused_qkv=any(n.endswith("qkv_proj") for n in linears),
    )
