"""Load a PEFT adapter directory, written by this or another program, into the policy."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from rl_lightning.types import UserError

log = logging.getLogger(__name__)

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"

_MUST_BE_OFF = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")
"""Features of PEFT's LoRA that the policy does not support."""


def is_adapter(directory: Path) -> bool:
    """Whether the directory contains a PEFT adapter."""
    return (directory / CONFIG_FILE).is_file() and (directory / WEIGHTS_FILE).is_file()


def adapter_shape(directory: Path) -> tuple[int, int]:
    """Rank and alpha of the adapter; the policy must have the same.

    Raises:
        UserError: it is not a plain LoRA adapter.
    """
    config = _config(directory)
    wrong = [name for name in _MUST_BE_OFF if config.get(name)]
    if config.get("peft_type") != "LORA" or wrong:
        what = ", ".join(wrong) or config.get("peft_type", "no peft_type")
        raise UserError(f"ckpt_path: {directory} is not a plain LoRA adapter ({what}); only plain LoRA can be loaded")
    return int(config["r"]), int(config["lora_alpha"])


def load_adapter(model: PeftModel, directory: Path) -> None:
    """Load the adapter's weights into the policy. Modules that it does not adapt keep their initial adapter, which has no effect.

    Raises:
        UserError: the adapter belongs to another model.
    """
    base, own = (
        Path(str(n)).name for n in (_config(directory).get("base_model_name_or_path"), model.config.name_or_path)
    )
    if base != own:
        log.warning(f"{directory} says that it adapts {base}, and the model is {own}")
    try:
        result: Any = set_peft_model_state_dict(model, load_file(directory / WEIGHTS_FILE))
    except (RuntimeError, SafetensorError) as error:
        reason = next(line.strip() for line in reversed(str(error).splitlines()) if line.strip())
        raise UserError(f"ckpt_path: {directory} does not fit this model: {reason}") from error
    if result.unexpected_keys:
        raise UserError(
            f"ckpt_path: {directory} does not fit this model: it adapts {result.unexpected_keys[0]}, which the model lacks; set "
            "model.policy.model_name_or_path to the model that it was trained on"
        )


def _config(directory: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"ckpt_path: {directory / CONFIG_FILE} is not JSON ({error})") from error
