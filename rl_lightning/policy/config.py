"""The settings of the model that is trained, and what follows from them before it is loaded."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from rl_lightning.policy.adapters import lora_settings
from rl_lightning.types import UserError, require

log = logging.getLogger(__name__)

EMBEDDED = {"tiny": Path(__file__).parents[1] / "assets" / "tiny"}
"""Models that ship with the package, by their name in configs."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_INITIAL = (True, "gaussian", "orthogonal")
"""Initial values of adapters that leave the base as it is; see `PolicyConfig.init_lora_weights`."""


@dataclass
class PolicyConfig:
    """The model that is trained."""

    model_name_or_path: str = "tiny"
    """A model hub name, a directory, or `tiny`, the small model that ships with rl_lightning."""

    quantization: Literal["nf4", "none"] = "nf4"
    """nf4: the frozen base is held in 4 bits with double quantisation (QLoRA, arXiv 2305.14314); none: in `dtype`. Weights that are
    stored in 4 bits by bitsandbytes need nf4, those stored in FP8 or MXFP4 need none, and so does lora_r 0."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The dtype that the model computes in; auto: bfloat16 on a GPU that supports it, else float16 with loss scaling; float32 on a
    CPU. What is trained is float32 in any case."""

    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel of the update; flash_attention_2 is replaced by sdpa, which uses the same kernel, with a warning."""

    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations in the backward pass: a third more computation for a fraction of the memory; auto: on only if memory
    does not suffice without it."""

    rollout_weights: Literal["auto", "merged", "unmerged"] = "auto"
    """The weights that rollouts run on. unmerged: the 4-bit base and its adapters; merged: a second, dense copy of both in
    `dtype`, which is faster per token; auto: merged if it fits in memory. With lora_r 0 they run on the model's own weights."""

    adapter: str | None = None
    """Directory of the PEFT LoRA adapter that a run begins from; null: a fresh adapter. Its rank, alpha, rsLoRA and target modules
    replace those that are set below."""

    reference: Literal["base", "adapter"] = "base"
    """The model that the KL term (objective.beta) measures from: the base, or base and adapter as the run began, of which a frozen
    copy is kept. With lora_r 0 and a KL term a frozen copy of the base is kept."""

    lora_r: int = 16
    """Rank of the adapters; 0: no adapters, all weights are trained (full fine-tuning), which needs quantization none."""

    lora_alpha: int = 32
    """The adapters' output is scaled by lora_alpha / lora_r; at least 1."""

    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(lora_r) instead (rsLoRA, arXiv 2312.03732)."""

    lora_target_modules: list[str] | None = None
    """The layers that get an adapter, by name, such as q_proj; null: those of `adapter`, else all linear layers of the decoder."""

    lora_dropout: float = 0.0
    """Only 0: with dropout the update would not have the log-probs that were sampled from."""

    init_lora_weights: bool | str = True
    """Initial values of the adapters, with which the policy is still the base; true: A as in PEFT, B zero; gaussian: A normal with
    standard deviation 1 / lora_r; orthogonal: A and B random, with a product of zero, for an even lora_r."""

    devices_per_replica: int = 1
    """GPUs of one machine that the layers of one model are laid over, in one process: room for a larger model, at the speed of one
    GPU; at least 1. trainer.devices counts such replicas."""

    self_test: bool = True
    """Compare a short rollout and update with transformers' own forward at load, in float32, and refuse a model that differs."""

    def __post_init__(self) -> None:
        resolve_name(self.model_name_or_path)
        require("policy.lora_r", self.lora_r, self.lora_r >= 0, "at least 1, or 0 to train all weights")
        require("policy.lora_alpha", self.lora_alpha, self.lora_alpha >= 1, "at least 1")
        if self.lora_r == 0:
            self._refuse_settings_of_adapters()
        allowed = "0: with dropout the update would not have the log-probs that were sampled from"
        require("policy.lora_dropout", self.lora_dropout, self.lora_dropout == 0, allowed)
        named = self.lora_target_modules is None or len(self.lora_target_modules) > 0
        require("policy.lora_target_modules", self.lora_target_modules, named, "at least one name, or null for all")
        allowed = "true, gaussian or orthogonal: others change the base, which rollouts and the reference use as it is"
        require("policy.init_lora_weights", self.init_lora_weights, self.init_lora_weights in _INITIAL, allowed)
        require("policy.devices_per_replica", self.devices_per_replica, self.devices_per_replica >= 1, "at least 1")
        even = self.init_lora_weights != "orthogonal" or self.lora_r % 2 == 0
        require("policy.lora_r", self.lora_r, even, "even with init_lora_weights orthogonal")
        given = self.reference == "base" or self.adapter is not None
        require("policy.reference", self.reference, given, "base where policy.adapter is null")
        if self.adapter is not None:
            self._take_over(Path(self.adapter).expanduser())

    def _refuse_settings_of_adapters(self) -> None:
        full = "where lora_r is 0, which trains all weights"
        require("policy.quantization", self.quantization, self.quantization == "none", f"none {full}")
        whole = self.rollout_weights != "unmerged"
        require("policy.rollout_weights", self.rollout_weights, whole, f"auto {full}: rollouts run on these")
        of_lora = "adapter", "lora_alpha", "use_rslora", "lora_target_modules", "init_lora_weights"
        for name in (*of_lora, "devices_per_replica"):
            value, default = getattr(self, name), getattr(PolicyConfig, name)
            require(f"policy.{name}", value, value == default, f"{json.dumps(default)} {full}")

    def _take_over(self, adapter: Path) -> None:
        """Replace the settings that the adapter determines by its own, with a line where they differ."""
        found = lora_settings(adapter)
        other = [f"{name} {value}" for name, value in found.items() if getattr(self, name) not in (value, None)]
        if other:
            log.warning("policy.adapter: %s has %s; these replace the settings", adapter, ", ".join(other))
        vars(self).update(found)


def resolve_name(name: str) -> str:
    """The directory of a model that ships with the package, or else the given name.

    Raises:
        UserError: a path that does not exist or holds no model.
    """
    if name in EMBEDDED:
        return str(EMBEDDED[name])
    looks_like_path = name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name
    directory = Path(name).expanduser()
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise UserError(f"policy.model_name_or_path: {name!r} is not a model's directory: it has no config.json")
        return str(directory)
    if looks_like_path or "/" not in name:
        raise UserError(
            f"policy.model_name_or_path: {name!r} is not a directory; give a model's directory, a hub name such as "
            "Qwen/Qwen2.5-1.5B-Instruct, or `tiny`"
        )
    return name


def compute_dtype(config: PolicyConfig, device: torch.device) -> torch.dtype:
    """The dtype that the base computes in on this device."""
    if config.dtype != "auto":
        return DTYPES[config.dtype]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
