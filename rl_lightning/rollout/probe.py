"""What each layer of a policy computes: seen in one forward pass, by a recording attention function and hooks on the layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rl_lightning.policy import Policy
from rl_lightning.policy.attention import AttentionKind, causal_attention, no_mask
from rl_lightning.types import UserError

PROBE_TOKENS = 48

_MAX_POSITIONS = 2**15
"""A bound on the table of rotary encodings."""


@dataclass
class Probe:
    """One forward pass of S random tokens.

    Attributes:
        ids: (1, S) int64.
        positions: (S,) int64, spread over the model's context, because some models treat far positions in another way.
        kinds: how each layer attends.
        kv_shape: number of layers, number of key/value heads, their width D.
        inputs, outputs: (1, S, H) hidden states before and after each decoder layer.
        last: (1, S, H) last hidden states.
    """

    ids: Tensor
    positions: Tensor
    kinds: list[AttentionKind]
    kv_shape: tuple[int, int, int]
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    last: Tensor = field(default_factory=lambda: torch.empty(0))


@torch.no_grad()
def probe(policy: Policy, tokens: int = PROBE_TOKENS) -> Probe:
    """Run the policy once on random tokens.

    Args:
        policy: the policy; its mode does not change.
        tokens: S.

    Raises:
        UserError: not every layer attends through transformers' attention interface, or their caches differ in shape.
    """
    decoder = policy.base.get_decoder()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(policy.head.words, (1, tokens), generator=generator).to(policy.device)
    kinds: dict[int, AttentionKind] = {}
    shapes: set[tuple[int, ...]] = set()
    positions = torch.linspace(0, _context(policy.model.config) - 1, tokens).long().to(policy.device)
    seen = Probe(ids, positions, [], (0, 0, 0))

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) -> Tensor:
        kinds[layer] = kind
        shapes.update((key.shape, value.shape))
        return causal_attention(query, key, value, kind)

    def keep(module: object, args: tuple[Tensor, ...], out: Tensor | tuple[Tensor, ...]) -> None:
        seen.inputs.append(args[0].clone())
        seen.outputs.append((out if isinstance(out, Tensor) else out[0]).clone())

    hooks = [layer.register_forward_hook(keep) for layer in getattr(decoder, "layers", [])]
    try:
        with policy.autocast():
            mask = no_mask(policy.device)
            seen.last = policy.hidden_states(ids[0], positions, attention_mask=mask, attend=attend)[None]
    finally:
        for hook in hooks:
            hook.remove()
    layers = policy.model.config.get_text_config().num_hidden_layers
    if sorted(kinds) != list(range(layers)):
        raise UserError(
            f"policy.model_name_or_path: {policy.family} is not supported: {layers - len(kinds)} of its {layers} layers keep a "
            "state or attend in their own way, which packed updates and rollouts would lose; use a model whose layers all attend "
            "through transformers' attention interface, as Llama, Qwen, Mistral, Gemma and most others do"
        )
    if len({(shape[1], shape[3]) for shape in shapes}) > 1:
        raise UserError(
            f"policy.model_name_or_path: {policy.family} is not supported: its layers' keys and values differ in number or width "
            "of heads"
        )
    _, heads, _, width = next(iter(shapes))
    seen.kinds, seen.kv_shape = [kinds[layer] for layer in range(layers)], (layers, heads, width)
    return seen


def _context(model_config: Any) -> int:
    """Positions that a sequence may have: the model's, but for rotary encodings that change as a whole beyond the original ones."""
    config = model_config.get_text_config()
    context = getattr(config, "max_position_embeddings", None) or PROBE_TOKENS
    rope = getattr(config, "rope_parameters", None) or {}
    if changing_rope(model_config):
        context = min(context, rope.get("original_max_position_embeddings") or context)
    return min(context, _MAX_POSITIONS)


def changing_rope(model_config: Any) -> str | None:
    """The type of rotary encodings that depend on the longest position of a forward pass; None for others."""
    rope = getattr(model_config.get_text_config(), "rope_parameters", None) or {}
    of_kinds = [
        rope,
        *(kind for kind in rope.values() if isinstance(kind, dict)),
    ]  # Gemma 3 has one for each kind of layer
    return next((each["rope_type"] for each in of_kinds if each.get("rope_type") in ("longrope", "dynamic")), None)
