"""The model that rollouts run on: the policy's weights in few matrix products per token, refreshed before each rollout.

Weights are not quantised again. Layers with the same input are one product (q, k and v; gate and up). `Merged` is a dense copy of
base and adapters: one product per layer, at the cost of a second, dequantised copy of the linear weights. `Adapted` reads the 4-bit
base in place, and adds all adapters with the same input by two products. `Shared` is for a model that is trained as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_lightning.policy import Policy
from rl_lightning.policy.attention import AttentionKind, no_mask
from rl_lightning.policy.lora import base_product, dense_weight, dithered, is_adapted
from rl_lightning.policy.products import packed, product
from rl_lightning.rollout.network import Attend, Layer, Network
from rl_lightning.rollout.network_check import first_difference
from rl_lightning.rollout.probe import Probe, changing_rope, probe
from rl_lightning.types import first_line

log = logging.getLogger(__name__)


def decoder_of(policy: Policy, merged: bool) -> RolloutNetwork | ThroughTransformers:
    """The policy as a `RolloutNetwork`, if each of its layers gives what the policy's does; else through transformers.

    Args:
        policy: its weights are read at each `refresh`.
        merged: whether to decode from a dense, merged copy.

    Raises:
        UserError: not every layer of the model attends, or not all by the same number and width of heads.
    """
    seen = probe(policy)
    if not policy.own_network:
        log.warning(
            f"{policy.family} is sampled by transformers' own forward, which is slower (as its self-test found)"
        )
        return ThroughTransformers(policy, seen)
    try:
        network = rollout_network(policy, merged, seen)
        network.refresh()
        wrong = first_difference(network, seen, policy.compute_dtype)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:  # a part is missing, or is called otherwise
        if isinstance(error, torch.OutOfMemoryError):
            raise
        wrong = first_line(error)
    if wrong is None:
        return network
    log.warning(f"{policy.family} is sampled by transformers' own forward, which is slower ({wrong})")
    return ThroughTransformers(policy, seen)


class Merged:
    """Linear layers with the same input, as one dense product.

    Args:
        layers: PEFT's LoRA layers, or plain ones, which have no adapter.
        dtype: dtype of the copy.

    Attributes:
        weight: (out, in) of all layers together, at the same address after each `refresh`, unless it is packed.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.layers = layers
        bases = [_base_of(layer) for layer in layers]
        self.sizes = [base.out_features for base in bases]
        device = bases[0].weight.device
        self.weight = torch.empty(sum(self.sizes), bases[0].in_features, dtype=dtype, device=device)
        self.bias = None if bases[0].bias is None else torch.cat([base.bias for base in bases])

    def refresh(self) -> None:
        """Read the current base and adapters."""
        weight = torch.empty(self.weight.shape, dtype=self.weight.dtype) if self.weight.is_mkldnn else self.weight
        for part, layer in zip(weight.split(self.sizes), self.layers, strict=True):
            dense = dense_weight(_base_of(layer))
            part.copy_(dithered(dense + layer.get_delta_weight("default"), part.dtype) if is_adapted(layer) else dense)
        self.weight = packed(weight)

    def __call__(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


class Shared:
    """Linear layers with the same input, as one dense product of their own weights, which become parts of the product's: nothing is
    copied when they are trained.

    Args:
        layers: linear layers without adapters, in `dtype`.
        dtype: dtype of the product.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self._layers, self._sizes = layers, [layer.out_features for layer in layers]
        self.weight = torch.empty(sum(self._sizes), layers[0].in_features, dtype=dtype, device=layers[0].weight.device)
        self.bias = None if layers[0].bias is None else self.weight.new_empty(len(self.weight))

    def refresh(self) -> None:
        """Take over the layers' weights, the first time, and again if another product has taken them over since."""
        self._take_over(self.weight, [layer.weight for layer in self._layers])
        if self.bias is not None:
            self._take_over(self.bias, [layer.bias for layer in self._layers])

    def _take_over(self, whole: Tensor, weights: list[nn.Parameter]) -> None:
        for part, weight in zip(whole.split(self._sizes), weights, strict=True):
            if weight.data_ptr() != part.data_ptr():
                part.copy_(weight)
                weight.data = part

    def __call__(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


class Adapted:
    """Linear layers with the same input, on the unmerged base: one product for all A matrices, one for all B matrices.

    Args:
        layers: PEFT's LoRA layers, or plain ones, which have no adapter.
        dtype: dtype of the adapters' products; the adapters are trained in float32.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.layers, self.bases = layers, [_base_of(layer) for layer in layers]
        self.ranks = [layer.r["default"] if is_adapted(layer) else 0 for layer in layers]
        self.sizes = [base.out_features for base in self.bases]
        device = self.bases[0].weight.device
        self.a = torch.empty(sum(self.ranks), self.bases[0].in_features, dtype=dtype, device=device)
        self.b = torch.zeros(sum(self.sizes), sum(self.ranks), dtype=dtype, device=device)

    def refresh(self) -> None:
        """Read the current adapters; B is block-diagonal, and includes LoRA's scale."""
        row_blocks = self.b.split(self.sizes)
        blocks = [rows.split(self.ranks, dim=1)[i] for i, rows in enumerate(row_blocks)]
        for layer, a, b in zip(self.layers, self.a.split(self.ranks), blocks, strict=True):
            if is_adapted(layer):
                a.copy_(layer.lora_A["default"].weight)
                b.copy_(layer.lora_B["default"].weight * layer.scaling["default"])

    def __call__(self, x: Tensor) -> Tensor:
        parts = [base_product(base, x) for base in self.bases]
        out = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]  # new, so adapters can be added in place
        if len(self.a):
            out.flatten(0, -2).addmm_(F.linear(x, self.a).flatten(0, -2), self.b.T)
        return out


class ThroughTransformers:
    """A policy of another architecture, decoded by transformers' own forward: more kernels per token, the same results.

    Args:
        policy: the policy; it is run under its autocast.
        seen: what its layers compute.
    """

    def __init__(self, policy: Policy, seen: Probe) -> None:
        self._policy, self._decoder = policy, policy.base.get_decoder()
        self.head, self.kv_shape = policy.head, seen.kv_shape
        self.devices: Sequence[torch.device] = policy.layer_devices
        waits = changing_rope(policy.base.config)
        self.uncapturable = (
            waits and f"{policy.family} reads lengths back for its {waits} rotary encodings in each step"
        )

    def refresh(self) -> None:
        """Nothing to do: it runs on the trained layers themselves."""

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Switch to eval mode while sampling, because gradient checkpointing is only for training."""
        self._policy.eval()
        try:
            yield
        finally:
            self._policy.train()

    def set_max_length(self, length: int) -> bool:
        """Nothing to do: any length is possible."""
        return True

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        with self._policy.autocast():
            mask = no_mask(ids.device)
            out = self._decoder(
                input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False, attend=attend
            )
        return out.last_hidden_state.to(self.head.weight.dtype)


class RolloutNetwork(Network):
    """A policy of Llama-style architecture."""

    def ready(self) -> AbstractContextManager[None]:
        """Nothing to do: it has no train or eval mode. Switching all modules of the model would take longer than some decode
        steps."""
        return nullcontext()

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the current weights; norms and embeddings are the policy's own tensors."""
        for layer in self.layers:
            for linear in (layer.qkv, layer.out, layer.gate_up, layer.down):
                linear.refresh()  # type: ignore[attr-defined]


def rollout_network(policy: Policy, merged: bool, seen: Probe) -> RolloutNetwork:
    """The policy written out for decoding. Of a merged copy the head may be a packed copy too: no adapter changes it.

    The caller must check that it agrees with the policy: a model may have all the parts and compute something else with them.

    Args:
        policy: with adapters on any of its linear layers, or with none.
        merged: whether to decode from a dense, merged copy.
        seen: what the policy's layers compute.

    Raises:
        AttributeError: the model does not have a part.
    """
    base: Any = policy.base
    decoder, config, dtype = base.get_decoder(), base.config.get_text_config(), policy.compute_dtype
    linear = Shared if policy.trains_all else Merged if merged else Adapted

    def layer(block: Any, kind: AttentionKind) -> Layer:
        attention, mlp = block.self_attn, block.mlp
        return Layer(
            block.input_layernorm.weight,
            linear(_first_present(attention, ("q_proj", "k_proj", "v_proj"), ("qkv_proj",)), dtype),
            linear(_first_present(attention, ("o_proj",)), dtype),
            block.post_attention_layernorm.weight,
            linear(_first_present(mlp, ("gate_proj", "up_proj"), ("gate_up_proj",)), dtype),
            linear(_first_present(mlp, ("down_proj",)), dtype),
            kind,
            bool(getattr(attention, "use_rope", True)),
            *(norm.weight if (norm := getattr(attention, name, None)) else None for name in ("q_norm", "k_norm")),
        )

    return RolloutNetwork(
        decoder.embed_tokens.weight,
        [layer(block, kind) for block, kind in zip(decoder.layers, seen.kinds, strict=True)],
        decoder.norm.weight,
        replace(policy.head, weight=packed(policy.head.weight)) if linear is Merged else policy.head,
        config.num_attention_heads,
        seen.kv_shape,
        config.rms_norm_eps,
        policy.layer_devices,
        lambda positions: decoder.rotary_emb(policy.head.weight[:1, None], positions),
    )


def _base_of(layer: Any) -> Any:
    """The linear layer itself, without its adapter."""
    return layer.get_base_layer() if is_adapted(layer) else layer


def _first_present(module: Any, *choices: tuple[str, ...]) -> list[Any]:
    """The layers of the first choice of names that are all linear layers of the module, with or without an adapter."""
    for names in choices:
        layers = [getattr(module, name, None) for name in names]
        if all(is_adapted(layer) or isinstance(layer, nn.Linear) for layer in layers):
            return layers
    raise AttributeError(f"{type(module).__name__} has none of {choices}")
