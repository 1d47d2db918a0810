"""Find a model's sizes from its config alone: it is built on the `meta` device, where tensors have a shape and no memory."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from rl_lightning.policy.config import EMBEDDED, resolve_name
from rl_lightning.policy.lora import adapted_linears, chosen_linears, decoder_layers, fused_experts
from rl_lightning.types import UserError

_SHIPPED = Path(__file__).parents[1] / "assets" / "shapes.json"
"""The needed fields of the config.json of common models, so that a plan needs no network."""


_SAME_INPUT = ("q_proj k_proj v_proj", "gate_proj up_proj")
"""Linear modules that rollouts compute by one product."""


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
        vocabulary: V, number of vocabulary tokens; 0 for a card that has decoder layers and no head.
        linear_weights: weights of the layers' linear modules, which 4-bit quantisation packs and LoRA can adapt.
        frozen_linear_weights: weights of linear modules that it packs, and LoRA cannot adapt: routers and vision towers.
        other_weights: all other weights: embeddings, head, norms, biases, fused experts.
        outside_linear_weights: of `frozen_linear_weights` those outside the decoder layers: vision towers.
        outside_other_weights: of `other_weights` those outside the decoder layers: embeddings, head, last norm.
        text_weights: weights of the decoder and the output head, which are trained where all are.
        tied: whether the output head is the input embedding.
        largest_linear: weights of the largest linear module that LoRA can adapt.
        lora_weights_per_rank: adapter weights per LoRA rank: the sum of inputs and outputs of the modules that LoRA adapts.
        fused_lora_weights_per_rank: the same as rollouts hold them: modules with the same input share a product, whose B is the
            block-diagonal matrix of theirs, with rows for those of them that LoRA does not adapt.
        adapted_per_layer: number of linear modules per layer that LoRA adapts, rounded up.
        norms: number of norms of hidden states per layer: two, and four in Gemma.
        norms_qk: whether queries and keys are normalised (Qwen3).
        repeats_keys: whether keys and values are repeated for every query head, because the device has no fused attention without;
            see `attention_kernels`.
        fused_attention: whether PyTorch's fused attention can compute its scores: without soft-cap (Gemma 2) and sinks (GPT-OSS).
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
    outside_linear_weights: int
    outside_other_weights: int
    text_weights: int
    tied: bool
    largest_linear: int
    lora_weights_per_rank: int
    fused_lora_weights_per_rank: int
    adapted_per_layer: int
    norms: int
    norms_qk: bool
    fused_attention: bool
    repeats_keys: bool = False

    @property
    def parameters(self) -> int:
        """All weights of the base."""
        return self.linear_weights + self.frozen_linear_weights + self.other_weights


@functools.cache
def model_shape(name: str, targets: tuple[str, ...] | None = None) -> tuple[ModelShape, PretrainedConfig]:
    """The shape of a model and its config, without loading it.

    Args:
        name: `tiny`, a directory with a config.json, or a hub name, whose config ships with the package or can be downloaded.
        targets: the modules that LoRA adapts; see `shape_of`.

    Raises:
        UserError: the model's config cannot be read, or is not that of a causal language model; or it lacks a target.
    """
    shipped = known_models().get(name)
    try:
        config = AutoConfig.from_pretrained(resolve_name(name)) if shipped is None else AutoConfig.for_model(**shipped)
        return shape_of(config, targets), config
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


def shape_of(config: PretrainedConfig, targets: Sequence[str] | None = None) -> ModelShape:
    """The shape of a model of this config; of a multimodal model, the shape of its text decoder, and all its weights.

    Args:
        config: the model's config.
        targets: the modules that LoRA adapts, as in `policy.lora_target_modules`; None for all that it can.

    Raises:
        UserError: the model has no layers that LoRA could adapt, or none of a target's name.
    """
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    head = model.get_output_embeddings()
    linears = adapted_linears(model)
    adapted = chosen_linears(linears, targets)
    packed = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    weights, all_packed = ([m.weight.numel() for m in each] for each in (linears.values(), packed))
    text_part = {id(p): p.numel() for part in (model.get_decoder(), head) for p in part.parameters()}
    _, layers = decoder_layers(model)
    inner = {id(each) for each in layers.modules()}
    outer = sum(m.weight.numel() for m in packed if id(m) not in inner)
    in_layers = sum(p.numel() for p in layers.parameters())
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
        outside_linear_weights=outer,
        outside_other_weights=sum(p.numel() for p in model.parameters()) - in_layers - outer,
        text_weights=sum(text_part.values()),
        tied=head.weight is model.get_input_embeddings().weight,
        largest_linear=max(weights),
        lora_weights_per_rank=sum(m.in_features + m.out_features for m in adapted.values()),
        fused_lora_weights_per_rank=_fused_lora_weights(linears, adapted),
        adapted_per_layer=-(-len(adapted) // len(layers)),
        norms=sum("norm" in name and name not in ("q_norm", "k_norm") for name in names) // len(layers),
        norms_qk="q_norm" in names,
        fused_attention=not (
            getattr(text, "attn_logit_softcapping", None) or any(name.endswith("sinks") for name in parameters)
        ),
    )


def _fused_lora_weights(linears: Mapping[str, nn.Linear], adapted: Collection[str]) -> int:
    """Adapter weights per rank in the products of rollouts; see `ModelShape`."""
    products: dict[str, list[str]] = {}
    for name in linears:
        parent, _, own = name.rpartition(".")
        product = next((each for each in _SAME_INPUT if own in each.split()), own)
        products.setdefault(f"{parent}.{product}", []).append(name)
    return sum(
        sum(name in adapted for name in names)
        * (linears[names[0]].in_features + sum(linears[name].out_features for name in names))
        for names in products.values()
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
