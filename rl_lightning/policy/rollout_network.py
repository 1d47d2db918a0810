"""What rollouts run on: the policy's weights in as few products as a token can be had for, read anew before each rollout.

Nothing is requantised. Layers that read the same input are one product (q, k and v; gate and up). `Merged` is a dense copy of
base and adapters: one product a layer, at the price of the linear weights a second time, unpacked. `Adapted` reads the 4-bit
base in place, and adds all adapters that share an input by two products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.policy.attention import no_mask
from rl_lightning.policy.lora import dense_weight
from rl_lightning.rollout.network import Attend, Layer, Network


class Merged:
    """Adapted linear layers that read the same input, as one dense product.

    Args:
        layers: PEFT's.
        dtype: of the copy.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.layers = layers
        bases = [layer.get_base_layer() for layer in layers]
        self.sizes = [base.out_features for base in bases]
        device = layers[0].lora_A["default"].weight.device
        self.weight = torch.empty(sum(self.sizes), bases[0].in_features, dtype=dtype, device=device)
        self.bias = None if bases[0].bias is None else torch.cat([base.bias for base in bases])

    def refresh(self) -> None:
        """Read base and adapters as they are now."""
        for part, layer in zip(self.weight.split(self.sizes), self.layers, strict=True):
            part.copy_(dense_weight(layer.get_base_layer()) + layer.get_delta_weight("default"))

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Adapted:
    """Adapted linear layers that read the same input, on the base as it is: one product for every A, one for every B.

    Args:
        layers: PEFT's.
        dtype: that the adapters are multiplied in; they are trained in float32.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.layers, self.bases = layers, [layer.get_base_layer() for layer in layers]
        self.ranks = [layer.r["default"] for layer in layers]
        self.sizes = [base.out_features for base in self.bases]
        device = layers[0].lora_A["default"].weight.device
        self.a = torch.empty(sum(self.ranks), self.bases[0].in_features, dtype=dtype, device=device)
        self.b = torch.zeros(sum(self.sizes), sum(self.ranks), dtype=dtype, device=device)

    def refresh(self) -> None:
        """Read the adapters as they are now; the scale goes into B, whose blocks lie on the diagonal."""
        bands = self.b.split(self.sizes)
        blocks = [band.split(self.ranks, dim=1)[i] for i, band in enumerate(bands)]
        for layer, a, b in zip(self.layers, self.a.split(self.ranks), blocks, strict=True):
            a.copy_(layer.lora_A["default"].weight)
            b.copy_(layer.lora_B["default"].weight * layer.scaling["default"])

    def __call__(self, x: Tensor) -> Tensor:
        first = self.bases[0](x)  # a fresh tensor, to which the rest may be added in place
        out = first if len(self.bases) == 1 else torch.cat([first, *(base(x) for base in self.bases[1:])], dim=-1)
        out.flatten(0, -2).addmm_(F.linear(x, self.a).flatten(0, -2), self.b.T)
        return out


class ThroughTransformers:
    """A policy of another shape, by transformers' own forward: more kernels a token, the same results.

    Args:
        policy: in eval mode whenever this is called.
        autocast: what its adapters are multiplied under.
    """

    def __init__(self, policy: PeftModel, autocast: torch.autocast) -> None:
        base: Any = policy.get_base_model()
        self._autocast = autocast
        config = base.config.get_text_config()
        self._decoder = base.get_decoder()
        self.head: Tensor = base.get_output_embeddings().weight
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.kv_shape = config.num_hidden_layers, heads, width

    def refresh(self) -> None:
        """The trained layers are what it runs on."""

    def room_for(self, length: int) -> None:
        """Any length will do."""

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        with self._autocast:
            mask = no_mask(ids.device)
            out = self._decoder(
                input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False, attend=attend
            )
        return out.last_hidden_state.to(self.head.dtype)


class RolloutNetwork(Network):
    """A policy of the Llama shape."""

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the adapters as they are now."""
        for layer in self.layers:
            for product in (layer.qkv, layer.out, layer.gate_up, layer.down):
                product.refresh()  # type: ignore[attr-defined]


def rollout_network(policy: PeftModel, dtype: torch.dtype, merged: bool) -> RolloutNetwork | None:
    """The policy written out for decoding, or None where it has not the Llama shape.

    That it says the same as the policy is for the caller to check: a model may have the shape and do something else besides.

    Args:
        policy: with adapters on all linear layers.
        dtype: that it computes in.
        merged: whether to decode from a dense copy.
    """
    base: Any = policy.get_base_model()
    decoder, config = base.get_decoder(), base.config
    product = Merged if merged else Adapted

    def layer(block: Any) -> Layer:
        attention, mlp = block.self_attn, block.mlp
        return Layer(
            block.input_layernorm.weight,
            product(_one_of(attention, ("q_proj", "k_proj", "v_proj"), ("qkv_proj",)), dtype),
            product(_one_of(attention, ("o_proj",)), dtype),
            block.post_attention_layernorm.weight,
            product(_one_of(mlp, ("gate_proj", "up_proj"), ("gate_up_proj",)), dtype),
            product(_one_of(mlp, ("down_proj",)), dtype),
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
    except AttributeError:  # a part has another name
        return None


def _one_of(module: Any, *choices: tuple[str, ...]) -> list[Any]:
    for names in choices:
        layers = [getattr(module, name, None) for name in names]
        if all(isinstance(layer, LoraLayer) for layer in layers):
            return layers
    raise AttributeError(f"{type(module).__name__} has none of {choices}")
