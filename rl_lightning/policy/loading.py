"""Load a model by name: a frozen base, in 4 bits or dense, with trainable LoRA adapters on its decoder's linear layers, or, without
adapters, a model to train as a whole."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
)
from transformers.utils.quantization_config import FineGrainedFP8Config, Mxfp4Config

from rl_lightning.policy.adapters import load_adapter, lora_settings
from rl_lightning.policy.attention import register_attention
from rl_lightning.policy.lora import adapt_in_place, add_adapters, fused_experts
from rl_lightning.types import UserError, first_line, require

log = logging.getLogger(__name__)

EMBEDDED = {"tiny": Path(__file__).parents[1] / "assets" / "tiny"}
"""Models that ship with the package, by their name in configs."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_INITIAL = (True, "gaussian", "orthogonal")
"""Initial values of adapters that leave the base as it is; see `PolicyConfig.init_lora_weights`."""

_DEQUANTISED: dict[str, Any] = {"fp8": FineGrainedFP8Config, "mxfp4": Mxfp4Config}
"""Quantisations of stored weights that transformers can undo while it loads them, with its settings for them."""


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
        for name in ("adapter", "lora_alpha", "use_rslora", "lora_target_modules", "init_lora_weights"):
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
        return _DTYPES[config.dtype]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def load_tokenizer(name: str) -> Any:
    """The model's tokenizer.

    Raises:
        UserError: the tokenizer cannot be found.
    """
    return _from_pretrained(AutoTokenizer, name)


def load_model(config: PolicyConfig, device: torch.device, seed: int) -> Any:
    """Load the base, freeze it, and attach adapters: those of `policy.adapter`, or fresh ones, with which the policy is the base.
    With lora_r 0 load the model in float32, which `full.train_all` prepares for training.

    Args:
        config: the model's settings.
        device: device of the model.
        seed: seed of the adapters' initial values; the process's RNG states do not change.

    Raises:
        UserError: the model cannot be found or loaded, or is stored in a quantisation that cannot be trained; or its adapter does
            not fit it.
    """
    dtype = compute_dtype(config, device)
    base_config = _from_pretrained(AutoConfig, config.model_name_or_path)
    base = _from_pretrained(
        AutoModelForCausalLM,
        config.model_name_or_path,
        config=base_config,
        dtype=dtype if config.lora_r else torch.float32,
        quantization_config=quantization_config(config, base_config, dtype),
        attn_implementation=register_attention(_attention_kernel(config.attn_implementation)),
        device_map={"": device},
    )
    base.requires_grad_(False)
    _disable_cpu_repacking(base)
    if config.gradient_checkpointing == "on":
        base.gradient_checkpointing_enable({"use_reentrant": False})
    if config.lora_r == 0:
        return base
    _mention_experts(base)
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        use_rslora=config.use_rslora,
        target_modules=config.lora_target_modules,
        init_lora_weights=config.init_lora_weights,  # type: ignore[arg-type]
        task_type="CAUSAL_LM",
    )
    model = add_adapters(base, lora, device, seed)
    if config.adapter is not None:
        load_adapter(model, Path(config.adapter).expanduser())
    adapt_in_place(model)
    return model


def quantization_config(config: PolicyConfig, base: PretrainedConfig, dtype: torch.dtype) -> Any:
    """How transformers is to quantise the base, or, where its weights are stored quantised, to read them.

    Weights in nf4 or fp4 stay as they are and compute in `dtype`, whatever the checkpoint says. FP8 and MXFP4 have no backward
    pass here, so they are dequantised.

    Raises:
        UserError: weights stored like this cannot be used with `policy.quantization`.
    """
    stored = getattr(base, "quantization_config", None) or getattr(base.get_text_config(), "quantization_config", None)
    if stored is None:
        if config.quantization == "none":
            return None
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    method = str(stored.get("quant_method", "an unknown way"))
    here = f"policy.quantization: {config.model_name_or_path!r} is stored quantised by {method}"
    if config.lora_r == 0:
        raise UserError(f"{here}, and lora_r 0 trains all weights; use the original model, or set lora_r above 0")
    if stored.get("load_in_4bit"):
        if config.quantization != "nf4":
            raise UserError(f"{here} in 4 bits; set it to nf4, or use the original model")
        stored["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")
        return None
    if stored.get("load_in_8bit"):
        here += " in 8 bits"
    if method not in _DEQUANTISED:
        raise UserError(f"{here}, which cannot be trained here; use the original model with quantization nf4 or none")
    if config.quantization != "none":
        raise UserError(
            f"{here}; set it to none, which dequantises it to policy.dtype, or use a model that is not quantised"
        )
    return _DEQUANTISED[method](dequantize=True)


def _from_pretrained(factory: Any, name: str, **kwargs: Any) -> Any:
    try:
        return factory.from_pretrained(resolve_name(name), **kwargs)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"policy.model_name_or_path: {name!r} does not fit into the GPU's free memory; use a smaller model, or see "
            "with nvidia-smi what else uses the GPU"
        ) from error
    # A family whose code is not for this attention, or whose files are not what they should be, may raise any of these.
    except (OSError, ValueError, LookupError, AttributeError, TypeError, ImportError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        reason = first_line(error) if isinstance(error, OSError | ValueError) else reason
        raise UserError(f"policy.model_name_or_path: cannot load {name!r}: {reason}") from error


def _mention_experts(base: Any) -> None:
    """One line about a mixture of experts, whose memory is not what `nf4` promises."""
    experts = fused_experts(base)
    if experts:
        gigabytes = sum(weight.nbytes for weight in experts) / 1e9
        log.warning(
            "%s: only its attention is adapted; its experts have no adapter, and stay in %d bits (%.2g GB), because bitsandbytes "
            "does not quantise fused weights",
            type(base).__name__,
            8 * experts[0].element_size(),
            gigabytes,
        )


def _attention_kernel(name: str) -> str:
    if name == "flash_attention_2":  # its own packing does not support rows that share a prompt
        log.warning("flash_attention_2: blocks of rows are attended over by sdpa, which uses the same kernel")
        return "sdpa"
    return name


def _disable_cpu_repacking(base: torch.nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights at the first no-grad forward on a CPU with AVX512-BF16: gradients cannot be
    computed through repacked weights (seen with 0.50.2)."""
    module: Any
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
