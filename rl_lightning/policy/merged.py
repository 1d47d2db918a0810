"""A dense copy of the policy for rollouts: the base read from its 4 bits and the adapters merged in, once a rollout instead of
once a token.

A decoded token costs a trained layer a 4-bit product and two adapter products; here it costs one product. The price is the
base's weights a second time, unpacked, so this is for small models and for cards with room. Nothing is requantised: the copy
holds the very weights that the trained layers stand for, up to the rounding of its dtype.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class MergedCopy:
    """`model` shares with the policy all that no adapter changes: embeddings, norms, biases, head.

    Args:
        policy: a model with LoRA adapters on linear layers.
        dtype: of the merged weights, the policy's compute dtype.
    """

    def __init__(self, policy: PeftModel, dtype: torch.dtype) -> None:
        base: Any = policy.get_base_model()
        with torch.device("meta"):
            self.model: Any = type(base)(base.config).eval()
        self._layers: dict[str, Any] = {name: m for name, m in base.named_modules() if isinstance(m, LoraLayer)}
        for name in self._layers:
            weight = self.model.get_submodule(name).weight
            empty = torch.empty(weight.shape, dtype=dtype, device=base.device)
            self._put(f"{name}.weight", nn.Parameter(empty, requires_grad=False))
        for name, tensor in [*base.named_parameters(), *base.named_buffers()]:
            shared = name.replace(".base_layer.", ".")
            if ".lora_" not in name and shared.removesuffix(".weight") not in self._layers:
                self._put(shared, tensor)
        self.model.tie_weights()

    @torch.no_grad()
    def refresh(self) -> Any:
        """Read base and adapters as they are now; returns the model, in eval mode and without autocast."""
        for name, layer in self._layers.items():
            weight: Tensor = self.model.get_submodule(name).weight
            weight.copy_(_unpacked(layer.get_base_layer()) + layer.get_delta_weight("default"))
        return self.model

    def _put(self, name: str, tensor: Tensor) -> None:
        owner, _, leaf = name.rpartition(".")
        setattr(self.model.get_submodule(owner), leaf, tensor)


def _unpacked(layer: Any) -> Tensor:
    """(out, in) weights of a linear layer, 4-bit or not."""
    if isinstance(layer, bnb.nn.Linear4bit):
        weight: Any = layer.weight
        return bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
    return layer.weight
