"""Load a model by name: a frozen base, in 4 bits or dense, with trainable LoRA adapters on its decoder's linear layers, or, without
adapters, a model to train as a whole."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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

from rl_lightning.policy.adapters import load_adapter
from rl_lightning.policy.attention import register_attention
from rl_lightning.policy.config import PolicyConfig, compute_dtype, resolve_name
from rl_lightning.policy.lora import adapt_in_place, add_adapters, fused_experts
from rl_lightning.policy.placement import device_map, remove_dispatch_hooks
from rl_lightning.policy.quiet_loading import quiet_loading
from rl_lightning.types import UserError, first_line

log = logging.getLogger(__name__)

_DEQUANTISED: dict[str, Any] = {"fp8": FineGrainedFP8Config, "mxfp4": Mxfp4Config}
"""Quantisations of stored weights that transformers can undo while it loads them, with its settings for them."""

_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})


def load_tokenizer(name: str) -> Any:
    """The model's tokenizer.

    Raises:
        UserError: the tokenizer cannot be found.
    """
    return _from_pretrained(AutoTokenizer, name)


def load_model(
    config: PolicyConfig, device: torch.device, seed: int, layer_devices: Sequence[torch.device] = ()
) -> Any:
    """Load the base, freeze it, and attach adapters: those of `policy.adapter`, or fresh ones, with which the policy is the base.
    With lora_r 0 load the model in float32, which `full.train_all` prepares for training.

    Args:
        config: the model's settings.
        device: device of the model.
        seed: seed of the adapters' initial values; the process's RNG states do not change.
        layer_devices: device of each decoder layer, where these are several; see `placement`.

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
        device_map=device_map(base_config, layer_devices) if layer_devices else {"": device},
    )
    if layer_devices:
        remove_dispatch_hooks(base)
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
        with quiet_loading():
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
        cause = error.__cause__ or error  # transformers' own message of the cache names no setting
        if isinstance(cause, OSError) and cause.errno in _NOT_WRITABLE and not Path(resolve_name(name)).is_dir():
            reason = f"{cause.filename}: {cause.strerror}; set HF_HOME to a directory that can be written"
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
