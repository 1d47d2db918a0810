"""Read a PEFT adapter directory, written by this or another program: its settings, its weights, their hash."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from rl_lightning.checkpointing.model_files import CONFIG_FILE, WEIGHTS_FILE, is_adapter
from rl_lightning.types import UserError

log = logging.getLogger(__name__)

_MUST_BE_OFF = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "fan_in_fan_out",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "megatron_config",
)
"""Features of PEFT's LoRA that the policy does not compute."""

_INITIAL = (None, True, False, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` with which the adapter belongs to the base as it is, and not to one that it changed (PiSSA, OLoRA,
CorDA, LoftQ)."""

_CHOSEN_OTHERWISE = ("exclude_modules", "layers_to_transform", "layers_pattern")
"""Settings by which not all modules with the names in `target_modules` have an adapter."""

_WEIGHT = re.compile(r"base_model\.model\.(.+)\.lora_[AB]\.weight")


def lora_settings(directory: Path) -> dict[str, Any]:
    """The fields of `PolicyConfig` that an adapter determines.

    Raises:
        UserError: there is no adapter, or it is not plain LoRA.
    """
    if not is_adapter(directory):
        raise UserError(
            f"policy.adapter: {str(directory)!r} is not a PEFT adapter; give a directory with {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    config = _config(directory)
    wrong = [name for name in _MUST_BE_OFF if config.get(name)]
    wrong += [f"bias {config['bias']}"] if config.get("bias", "none") != "none" else []
    initial = config.get("init_lora_weights")
    wrong += [f"init_lora_weights {initial}"] if initial not in _INITIAL else []
    if config.get("peft_type") != "LORA" or wrong:
        what = ", ".join(wrong) or config.get("peft_type", "no peft_type")
        raise UserError(
            f"policy.adapter: {directory} is not a plain LoRA adapter ({what}); only plain LoRA can be loaded"
        )
    modules, named = _adapted_names(directory), config.get("target_modules")
    if isinstance(named, list) and not any(config.get(name) for name in _CHOSEN_OTHERWISE):
        modules = [str(name) for name in named]
    return {
        "lora_r": _whole_number(directory, config, "r"),
        "lora_alpha": _whole_number(directory, config, "lora_alpha"),
        "use_rslora": bool(config.get("use_rslora")),
        "lora_target_modules": sorted(modules),
        "init_lora_weights": True,
    }


def load_adapter(model: PeftModel, directory: Path) -> None:
    """Load an adapter's weights into a model with an adapter of the same settings; see `lora_settings`.

    Raises:
        UserError: the adapter belongs to another model.
    """
    base, own = (
        Path(str(n)).name for n in (_config(directory).get("base_model_name_or_path"), model.config.name_or_path)
    )
    if base != own:
        log.warning(f"{directory} says that it adapts {base}, and the model is {own}")
    try:
        found = load_file(directory / WEIGHTS_FILE)
    except SafetensorError as error:
        raise _unreadable(directory, error) from error
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)  # other values may query the model hub
    for name in [*sorted(found), *sorted(expected)]:
        if name not in expected:
            wrong = f"it has {name}, for which the model has no place"
        elif name not in found:
            wrong = f"it lacks {name}"
        elif found[name].shape != expected[name].shape:
            wrong = f"{name} is {_by(found[name])}, and would have to be {_by(expected[name])}"
        else:
            continue
        raise UserError(
            f"policy.adapter: {directory} does not fit this model: {wrong}; set policy.model_name_or_path to the model that it "
            "was trained on"
        )
    set_peft_model_state_dict(model, found)


def adapter_hash(directory: Path) -> str:
    """SHA-256 of the adapter's weights, by which a resumed run recognises them.

    Raises:
        UserError: there is none.
    """
    try:
        with (directory / WEIGHTS_FILE).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(directory, error) from error


def _by(tensor: Any) -> str:
    return " by ".join(str(size) for size in tensor.shape)


def _config(directory: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"policy.adapter: {directory / CONFIG_FILE} is not JSON of an adapter ({error})") from error


def _adapted_names(directory: Path) -> list[str]:
    """Names of the modules that the adapter's tensors are for, each once."""
    try:
        with safe_open(directory / WEIGHTS_FILE, "pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise _unreadable(directory, error) from error
    modules = {name: found[1] for name in names if (found := _WEIGHT.fullmatch(name))}
    if others := sorted(set(names) - set(modules)):
        raise UserError(
            f"policy.adapter: {directory} is not a plain LoRA adapter: it has {others[0]}; only plain LoRA can be loaded"
        )
    return sorted(set(modules.values()))


def _unreadable(directory: Path, error: Exception) -> UserError:
    return UserError(f"policy.adapter: {directory / WEIGHTS_FILE} cannot be read ({' '.join(str(error).split())})")


def _whole_number(directory: Path, config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int | float) or not float(value).is_integer() or value < 1:
        raise UserError(
            f"policy.adapter: {name} in {directory / CONFIG_FILE} must be a whole number, 1 or more, not {value}"
        )
    return int(value)


def refuse_other_shapes(trained: Mapping[str, torch.Size], found: Mapping[str, torch.Size]) -> None:
    """Refuse a checkpoint's adapter that is not of a model's names and shapes.

    Args:
        trained: name to shape of the model's trained tensors.
        found: the same of the checkpoint.

    Raises:
        UserError: they differ.
    """
    wrong = sorted(n for n in trained.keys() | found.keys() if trained.get(n) != found.get(n))
    if wrong:
        raise UserError(
            f"ckpt_path: the checkpoint's adapter does not fit this model: {len(wrong)} of {len(trained)} tensors differ, "
            f"the first is {wrong[0]}; use the model.policy section that it was trained with"
        )
