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
from rl_lightning.policy.lora import adapted_linears, decoder_layers, fused_experts
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
        mlp_width: width of the MLP's inner states; in a mixture of experts that of all experts that a token goes through.
        vocabulary: V, number of vocabulary tokens.
        linear_weights: weights of the layers' linear modules, which 4-bit quantisation packs and LoRA adapts.
        frozen_linear_weights: weights of linear modules that it packs, and LoRA does not adapt: routers and vision towers.
        other_weights: all other weights: embeddings, head, norms, biases, fused experts.
        largest_linear: weights of the largest linear module that LoRA adapts.
        lora_weights_per_rank: adapter weights per LoRA rank: the sum of inputs and outputs of the modules that LoRA adapts.
        linears_per_layer: number of linear modules per layer.
        norms: number of norms of hidden states per layer: two, and four in Gemma.
        norms_qk: whether queries and keys are normalised (Qwen3).
        fused_attention: whether PyTorch's fused attention can compute its scores: without soft-cap (Gemma 2) and sinks (GPT-OSS).
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
    frozen_linear_weights: int
    other_weights: int
    largest_linear: int
    lora_weights_per_rank: int
    linears_per_layer: int
    norms: int
    norms_qk: bool
    fused_attention: bool
    fused_qkv: bool

    @property
    def parameters(self) -> int:
        """All weights of the base."""
        return self.linear_weights + self.frozen_linear_weights + self.other_weights


@functools.cache
def model_shape(name: str) -> tuple[ModelShape, PretrainedConfig]:
    """The shape of a model and its config, without loading it.

    Args:
        name: `tiny`, a directory with a config.json, or a hub name, whose config ships with the package or can be downloaded.

    Raises:
        UserError: the model's config cannot be read, or is not that of a causal language model.
    """
    shipped = known_models().get(name)
    try:
        config = AutoConfig.from_pretrained(resolve_name(name)) if shipped is None else AutoConfig.for_model(**shipped)
        return shape_of(config), config
    except UserError:
        raise
    except Exception as error:  # what a foreign config makes transformers raise can be anything
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
    """The shape of a model of this config; of a multimodal model, the shape of its text decoder, and all its weights.

    Raises:
        UserError: the model has no layers that LoRA could adapt.
    """
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    head = model.get_output_embeddings()
    linears = adapted_linears(model)
    packed = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    weights, all_packed = ([m.weight.numel() for m in each] for each in (linears.values(), packed))
    _, layers = decoder_layers(model)
    names = [name.rpartition(".")[2] for name, _ in layers.named_modules()]
    parameters = dict(layers.named_parameters())
    heads = text.num_attention_heads
    return ModelShape(
        layers=len(layers),
        width=text.hidden_size,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_width=getattr(text, "head_dim", None) or text.hidden_size // heads,
        mlp_width=_mlp_width(text, mixture=bool(fused_experts(model))),
        vocabulary=text.vocab_size,
        linear_weights=sum(weights),
        frozen_linear_weights=sum(all_packed) - sum(weights),
        other_weights=sum(p.numel() for p in model.parameters()) - sum(all_packed),
        largest_linear=max(weights),
        lora_weights_per_rank=sum(m.in_features + m.out_features for m in linears.values()),
        linears_per_layer=len(linears) // len(layers),
        norms=sum("norm" in name and name not in ("q_norm", "k_norm") for name in names) // len(layers),
        norms_qk="q_norm" in names,
        fused_attention=not (
            getattr(text, "attn_logit_softcapping", None) or any(name.endswith("sinks") for name in parameters)
        ),
        fused_qkv=any(n.endswith("qkv_proj") for n in linears),
    )


def _mlp_width(text: PretrainedConfig, mixture: bool) -> int:
    """Width of the MLP's inner states in the widest layer. Families name the widths of experts and shared experts differently."""

    def size(name: str) -> int:
        value = getattr(text, name, None) or 0
        return max(value) if isinstance(value, list | tuple) else value  # some have a value per layer

    if not mixture:
        return size("intermediate_size") or 4 * text.hidden_size
    expert = size("moe_intermediate_size") or size("intermediate_size")
    shared = size("shared_expert_intermediate_size") or size("shared_intermediate_size")
    return size("num_experts_per_tok") * expert + (shared or size("n_shared_experts") * expert)
