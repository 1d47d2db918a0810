"""Files of models and adapters by the names that transformers, PEFT and vLLM know them by; needs none of these libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rl_lightning.types import UserError, require

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
"""Of a PEFT adapter."""

GENERATION = "generation_config.json"

_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The LoRA ranks that vLLM can be started for."""


def is_adapter(directory: Path) -> bool:
    """Whether the directory contains a PEFT adapter."""
    return (directory / CONFIG_FILE).is_file() and (directory / WEIGHTS_FILE).is_file()


def max_lora_rank(rank: int) -> int:
    """The least rank that vLLM can be started for and that has room for adapters of this one.

    Raises:
        UserError: there is none.
    """
    require("policy.lora_r for vLLM", rank, rank <= _VLLM_RANKS[-1], f"at most {_VLLM_RANKS[-1]}")
    return min(each for each in _VLLM_RANKS if each >= rank)


def read_json(path: Path) -> dict[str, Any]:
    """An object in a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from error
