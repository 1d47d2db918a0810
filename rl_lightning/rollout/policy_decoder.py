"""The model that rollouts run on: the policy's weights in few matrix products per token, refreshed before each rollout.

Weights are not quantised again. Layers with the same input are one product (q, k and v; gate and up). `Merged` is a dense copy of
base and adapters: one product per layer, at the cost of a second, dequantised copy of the linear weights. `Adapted` reads the 4-bit
base in place, and adds all adapters with the same input by two products.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.policy import Policy
from rl_lightning.policy.attention import no_mask
from rl_lightning.policy.lora import dense_weight, is_adapted
from rl_lightning.rollout.network import Attend, Layer, Network, causal_attention

log = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-3}
"""Largest distance of the last hidden states, relative to their norm, at which the network counts as agreeing with the policy."""

TOLERANCE_16_BITS = 0.1
"""The same in 16 bits, where each layer adds rounding of a few per mille, which norms may scale up."""


def decoder_of(policy: Policy, merged: bool) -> RolloutNetwork | ThroughTransformers:
    """The policy as a `RolloutNetwork`, if that gives the policy's hidden states; else through transformers.

    Args:
        policy: its adapters are read at each `refresh`.
        merged: whether to decode from a dense, merged copy.
    """
    network = rollout_network(policy.model, policy.compute_dtype, merged)
    if network is not None and _agree(network, policy):
        return network
    log.warning(f"{policy.family} is sampled by transformers' own forward, which is slower")
    return ThroughTransformers(policy)


@torch.no_grad()
def _agree(network: RolloutNetwork, policy: Policy) -> bool:
    """Whether network and policy give the same last hidden states for a few tokens."""
    ids = torch.arange(1, 9, device=policy.device)
    positions = torch.arange(len(ids), device=policy.device)
    network.set_max_length(len(ids))
    network.refresh()
    ours = network(ids[None], positions[None], causal_attention)[0]
    with policy.autocast():
        theirs = policy.hidden_states(ids, positions)
    tolerance = TOLERANCE.get(policy.compute_dtype, TOLERANCE_16_BITS)
    return bool((ours - theirs).float().norm() <= tolerance * theirs.float().norm())


class Merged:
    """Adapted linear layers with the same input, as one dense product.

    Args:
        layers: PEFT's LoRA layers.
        dtype: dtype of the copy.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.layers = layers
        bases = [layer.get_base_layer() for layer in layers]
        self.sizes = [base.out_features for base in bases]
        device = layers[0].lora_A["default"].weight.device
        self.weight = torch.empty(sum(self.sizes), bases[0].in_features, dtype=dtype, device=device)
        self.bias = None if bases[0].bias is None else torch.cat([base.bias for base in bases])

    def refresh(self) -> None:
        """Read the current base and adapters."""
        for part, layer in zip(self.weight.split(self.sizes), self.layers, strict=True):
            part.copy_(dense_weight(layer.get_base_layer()) + layer.get_delta_weight("default"))

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Adapted:
    """Adapted linear layers with the same input, on the unmerged base: one product for all A matrices, one for all B matrices.

    Args:
        layers: PEFT's LoRA layers.
        dtype: dtype of the adapters' products; the adapters are trained in float32.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.layers, self.bases = layers, [layer.get_base_layer() for layer in layers]
        self.ranks = [layer.r["default"] for layer in layers]
        self.sizes = [base.out_features for base in self.bases]
        device = layers[0].lora_A["default"].weight.device
        self.a = torch.empty(sum(self.ranks), self.bases[0].in_features, dtype=dtype, device=device)
        self.b = torch.zeros(sum(self.sizes), sum(self.ranks), dtype=dtype, device=device)

    def refresh(self) -> None:
        """Read the current adapters; B is block-diagonal, and includes LoRA's scale."""
        row_blocks = self.b.split(self.sizes)
        blocks = [rows.split(self.ranks, dim=1)[i] for i, rows in enumerate(row_blocks)]
        for layer, a, b in zip(self.layers, self.a.split(self.ranks), blocks, strict=True):
            a.copy_(layer.lora_A["default"].weight)
            b.copy_(layer.lora_B["default"].weight * layer.scaling["default"])

    def __call__(self, x: Tensor) -> Tensor:
        first = self.bases[0](x)  # a new tensor, so the adapters' product can be added in place
        out = first if len(self.bases) == 1 else torch.cat([first, *(base(x) for base in self.bases[1:])], dim=-1)
        out.flatten(0, -2).addmm_(F.linear(x, self.a).flatten(0, -2), self.b.T)
        return out


class ThroughTransformers:
    """A policy of another architecture, decoded by transformers' own forward: more kernels per token, the same results.

    Args:
        policy: the policy; it is run under its autocast.
    """

    def __init__(self, policy: Policy) -> None:
        base: Any = policy.model.get_base_model()
        self._policy = policy
        config = base.config.get_text_config()
        self._decoder = base.get_decoder()
        self.head: Tensor = base.get_output_embeddings().weight
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.kv_shape = config.num_hidden_layers, heads, width

    def refresh(self) -> None:
        """Nothing to do: it runs on the trained layers themselves."""

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Switch to eval mode while sampling, because gradient checkpointing is only for training."""
        self._policy.model.eval()
        try:
            yield
        finally:
            self._policy.model.train()

    def set_max_length(self, length: int) -> None:
        """Nothing to do: any length is possible."""

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        with self._policy.autocast():
            mask = no_mask(ids.device)
            out = self._decoder(
                input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False, attend=attend
            )
        return out.last_hidden_state.to(self.head.dtype)


class RolloutNetwork(Network):
    """A policy of Llama-style architecture."""

    def ready(self) -> AbstractContextManager[None]:
        """Nothing to do: it has no train or eval mode. Switching all modules of the model would take longer than some decode
        steps."""
        return nullcontext()

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the current adapters."""
        for layer in self.layers:
            for product in (layer.qkv, layer.out, layer.gate_up, layer.down):
                product.refresh()  # type: ignore[attr-defined]


def rollout_network(model: Any, dtype: torch.dtype, merged: bool) -> RolloutNetwork | None:
    """The policy written out for decoding, or None if it does not have a Llama-style architecture.

    The caller must check that it agrees with the policy: a model may have all the parts and compute something else with them.

    Args:
        model: PEFT's model, with adapters on all linear layers.
        dtype: the dtype that it computes in.
        merged: whether to decode from a dense, merged copy.
    """
    base: Any = model.get_base_model()
    decoder, config = base.get_decoder(), base.config
    linear = Merged if merged else Adapted

    def layer(block: Any) -> Layer:
        attention, mlp = block.self_attn, block.mlp
        return Layer(
            block.input_layernorm.weight,
            linear(_first_present(attention, ("q_proj", "k_proj", "v_proj"), ("qkv_proj",)), dtype),
            linear(_first_present(attention, ("o_proj",)), dtype),
            block.post_attention_layernorm.weight,
            linear(_first_present(mlp, ("gate_proj", "up_proj"), ("gate_up_proj",)), dtype),
            linear(_first_present(mlp, ("down_proj",)), dtype),
            *(norm.weight if (norm := getattr(attention, name, None)) else None for name in ("q_norm", "k_norm")),
        )

    try:
        head = base.get_output_embeddings().weight
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return RolloutNetwork(
            decoder.embed_tokens.weight,
            [layer(block) for block in decoder.layers],
            decoder.norm.weight,
            head,
            config.num_attention_heads,
            (config.num_hidden_layers, config.num_key_value_heads, width),
            config.rms_norm_eps,
            lambda positions: decoder.rotary_emb(head[:1, None], positions),
        )
    except AttributeError:  # a module is missing or has another name
        return None


def _first_present(module: Any, *choices: tuple[str, ...]) -> list[Any]:
    """The layers of the first choice of names that are all adapted layers of the module."""
    for names in choices:
        layers = [getattr(module, name, None) for name in names]
        if all(is_adapted(layer) for layer in layers):
            return layers
    raise AttributeError(f"{type(module).__name__} has none of {choices}")
