"""Save and restore RNG states for bitwise resume, and refuse to resume with settings that change the results."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import torch

from rl_lightning.checkpointing.secrets import is_secret
from rl_lightning.types import UserError

_MAY_DIFFER = frozenset(
    {
        "policy.attn_implementation",
        "policy.devices_per_replica",
        "policy.dtype",
        "policy.gradient_checkpointing",
        "policy.rollout_weights",
        "policy.self_test",
        "sampling.max_rollout_rows",
    }
)
"""Settings of speed and memory, which change results by no more than rounding."""

_ADDED = {
    "data.answer_format": "'tags'",
    "policy.adapter": "None",
    "policy.init_lora_weights": "True",
    "policy.lora_dropout": "0.0",
    "policy.lora_target_modules": "None",
    "policy.reference": "'base'",
    "policy.use_rslora": "False",
    "reward.format_grading": "'strict'",
    "sft_steps": "0",
}
"""Settings that older checkpoints lack, with the value by which a run does what it did before there was the setting."""

_PLAIN = (str, int, float, dict, type(None))
"""Types whose repr is the same in every process; a function's, for example, contains its address."""


def rng_states() -> dict[str, Any]:
    """Return the states of all global generators, as plain numbers and tensors, which load without running pickled code."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {k: _plain(v) for k, v in numpy_state["state"].items()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_states(states: dict[str, Any]) -> None:
    """Restore what `rng_states` returned. CUDA's generators keep their states if the number of devices has changed."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = states["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(states["cuda"])


def settings(**parts: Any) -> dict[str, str]:
    """Flatten settings to text by dotted name: dataclasses, dicts and lists item by item, other objects as class and attributes.

    What looks like a secret is left out: it belongs into no checkpoint, and changes no result.
    """
    found: dict[str, str] = {}
    for name, part in parts.items():
        if is_secret(name, part):
            continue
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
            # One of several classes with the same base, such as a surrogate: which one matters even if their fields agree.
            part = fields if type(part).__bases__ == (object,) else {"class_path": type(part).__qualname__, **fields}
        elif hasattr(part, "__dict__"):
            own = {name: value for name, value in vars(part).items() if not name.startswith("_")}
            part = {"class_path": type(part).__qualname__, **own}
        if isinstance(part, (list, tuple)):
            part = {str(i): item for i, item in enumerate(part)}
        if isinstance(part, dict) and part:
            found |= {f"{name}.{key}": value for key, value in settings(**{str(k): v for k, v in part.items()}).items()}
        else:
            found[name] = repr(part) if isinstance(part, _PLAIN) else type(part).__qualname__
    return {name: value for name, value in found.items() if name not in _MAY_DIFFER}


def refuse_other_settings(trained_with: dict[str, str], now: dict[str, str]) -> None:
    """Refuse to resume a run with settings other than those it was trained with.

    Raises:
        UserError: it names each setting that differs, with both values.
    """
    trained_with = {name: value for name, value in _ADDED.items() if name in now} | {
        name: value  # older checkpoints have secrets
        for name, value in trained_with.items()
        if name in now or not is_secret(name.rpartition(".")[2], value)
    }
    changed = [
        f"{name} was {trained_with.get(name, 'not set')} and is {now.get(name, 'not set')}"
        for name in sorted(trained_with.keys() | now.keys())
        if trained_with.get(name) != now.get(name)
    ]
    if changed:
        raise UserError(
            f"ckpt_path: the checkpoint was trained with other settings: {'; '.join(changed)}; set them back to resume, or "
            "start a new run"
        )


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
