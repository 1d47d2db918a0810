"""From a model's name to a frozen base, in 4 bits or whole, with trainable LoRA adapters on every linear layer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from rl_lightning.policy.attention import seam
from rl_lightning.policy.lora import adapt_in_place
from rl_lightning.types import UserError, require

log = logging.getLogger(__name__)

EMBEDDED = {"tiny": Path(__file__).parents[1] / "assets" / "tiny"}
"""Models that ship with the program, by the name that configs use."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class PolicyConfig:
    """The model that learns."""

    model_name_or_path: str = "tiny"
    """A model hub name, a directory, or `tiny`, the policy that ships with rl_lightning."""

    quantization: Literal["nf4", "none"] = "nf4"
    """`nf4` holds the frozen base in 4 bits with double quantisation (QLoRA, arXiv 2305.14314); `none` in `dtype`."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the base computes in; auto: bfloat16 on a GPU that has it, else float16 with loss scaling; float32 on a CPU."""

    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel of the update; sdpa takes the place of flash_attention_2, which has the same kernel, and a line says so."""

    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations in backward: a third more work for a fraction of the memory; auto: where it does not fit without."""

    rollout_weights: Literal["auto", "merged", "trained"] = "auto"
    """What rollouts run on: `trained` is the 4-bit base as it is and its adapters; `merged` a second, dense copy of both in
    `dtype`, faster a token; auto: merged where there is room for it."""

    lora_r: int = 16
    """Rank of the adapters; at least 1."""

    lora_alpha: int = 32
    """Adapters are scaled by lora_alpha / lora_r."""

    def __post_init__(self) -> None:
        resolve_name(self.model_name_or_path)
        for name in ("lora_r", "lora_alpha"):
            require(f"policy.{name}", getattr(self, name), getattr(self, name) >= 1, "at least 1")


def resolve_name(name: str) -> str:
    """The directory of an embedded model, or the name as it is.

    Raises:
        UserError: a path that does not exist.
    """
    if name in EMBEDDED:
        return str(EMBEDDED[name])
    looks_like_path = name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or "\\" in name
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser())
    if looks_like_path or "/" not in name:
        raise UserError(
            f"policy.model_name_or_path: {name!r} is not a directory; give a model's directory, a hub name such as "
            "Qwen/Qwen2.5-1.5B-Instruct, or `tiny`"
        )
    return name


def compute_dtype(config: PolicyConfig, device: torch.device) -> torch.dtype:
    """What `dtype: auto` means on this device."""
    if config.dtype != "auto":
        return _DTYPES[config.dtype]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def load_tokenizer(name: str) -> Any:
    """The model's tokenizer.

    Raises:
        UserError: it cannot be found, or has no chat template.
    """
    tokenizer = _from_pretrained(AutoTokenizer, name)
    if not tokenizer.chat_template:
        raise UserError(
            f"policy.model_name_or_path: {name!r} has no chat template; use an instruction-tuned model (…-Instruct)"
        )
    return tokenizer


def load_model(config: PolicyConfig, device: torch.device, seed: int) -> PeftModel:
    """Load the base, freeze it, and attach fresh adapters (B is zero, so the policy starts as the base).

    Args:
        config: see `PolicyConfig`.
        device: where the base goes.
        seed: of the adapters' A matrices; no other random state is touched.

    Raises:
        UserError: the model cannot be found or loaded.
    """
    dtype = compute_dtype(config, device)
    quantization = None
    if config.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    base = _from_pretrained(
        AutoModelForCausalLM,
        config.model_name_or_path,
        dtype=dtype,
        quantization_config=quantization,
        attn_implementation=seam(_attention(config.attn_implementation)),
        device_map={"": device},
    )
    base.requires_grad_(False)
    _keep_4bit_weights_as_they_are(base)
    if config.gradient_checkpointing == "on":
        base.gradient_checkpointing_enable({"use_reentrant": False})
    lora = LoraConfig(r=config.lora_r, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = get_peft_model(base, lora)  # adapters in float32 whatever the base, or small updates round away
    adapt_in_place(model)
    return model


def _from_pretrained(factory: Any, name: str, **kwargs: Any) -> Any:
    try:
        return factory.from_pretrained(resolve_name(name), **kwargs)
    except (OSError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"policy.model_name_or_path: cannot load {name!r}: {reason}") from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"policy.model_name_or_path: {name!r} does not fit into the GPU's free memory; take a smaller model, or see "
            "with nvidia-smi what else uses the GPU"
        ) from error


def _attention(wanted: str) -> str:
    if wanted == "flash_attention_2":  # whose own packing knows nothing of rows that share a prompt
        log.warning("flash_attention_2: blocks of rows are attended over by sdpa, which has the same kernel in it")
        return "sdpa"
    return wanted


def _keep_4bit_weights_as_they_are(base: torch.nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights at the first no-grad forward on a CPU with AVX512-BF16: the repacked
    ones cannot be trained through (seen with 0.50.2)."""
    module: Any
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
