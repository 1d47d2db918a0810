"""Find the files of the base, on the disk or on the hub, and copy those that belong to every export."""

from __future__ import annotations

import json
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from rl_lightning.checkpointing.model_files import GENERATION, read_json
from rl_lightning.policy.config import resolve_name
from rl_lightning.types import UserError, first_line

_TOKENIZER = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.model",
    "*.tiktoken",
)
_TEMPLATES = "additional_chat_templates"
_MODEL = ("config.json", "preprocessor_config.json", "processor_config.json", "LICENSE*", "NOTICE*")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_SNAPSHOT = re.compile(r"models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\][0-9a-f]+[/\\]?$")
"""A model's directory in the hub's cache."""


def base_directory(name: str) -> Path:
    """The directory with a model's files; those of the hub are downloaded, or taken from its cache.

    Args:
        name: as in `policy.model_name_or_path`.

    Raises:
        UserError: there is no such model, or the hub cannot be reached.
    """
    local = Path(resolve_name(name))
    if local.is_dir():
        return local
    patterns = [*_TOKENIZER, *_MODEL, *_WEIGHTS, GENERATION, "README.md"]
    try:
        snapshot_download(name, allow_patterns=f"{_TEMPLATES}/*")
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*", "consolidated*"]))
    except (OSError, ValueError) as error:  # the hub's own errors are either
        raise UserError(
            f"export: the base {name!r} is not at hand ({first_line(error)}); name its directory by --base"
        ) from error


def stored_quantised(base: Path) -> str | None:
    """How a base's files are quantised; None where they are not."""
    config = read_json(base / "config.json")
    stored = config.get("quantization_config") or config.get("text_config", {}).get("quantization_config")
    return str(stored.get("quant_method", "an unknown way")) if stored else None


def refuse_quantised(base: Path) -> None:
    """Refuse a base whose files are quantised: an adapter is merged into full precision.

    Raises:
        UserError: it is quantised.
    """
    if (how := stored_quantised(base)) is not None:
        raise UserError(
            f"export: the base {base} is stored quantised by {how}; name the original, full-precision weights by --base"
        )


def hub_name(name: str, base: Path) -> str | None:
    """The name of a base on the hub, where it is known.

    Args:
        name: as the config has it.
        base: its directory.
    """
    if not Path(resolve_name(name)).is_dir():
        return name
    if found := _SNAPSHOT.search(str(base.resolve())):
        return f"{found[1]}/{found[2]}"
    said = str(read_json(base / "config.json").get("_name_or_path", ""))
    return said if re.fullmatch(r"[\w.-]+/[\w.-]+", said) and not Path(said).exists() else None


def copy_tokenizer(source: Path, directory: Path) -> None:
    """Copy the tokenizer's files and the chat template, byte for byte."""
    _copy(source, directory, _TOKENIZER)
    if (source / _TEMPLATES).is_dir():
        shutil.copytree(
            source / _TEMPLATES,
            directory / _TEMPLATES,
            copy_function=shutil.copyfile,  # the base may be read-only
        )


def copy_model_files(source: Path, directory: Path, dtype: str | None) -> None:
    """Copy the model's config and what else belongs to it, byte for byte unless the dtype changes."""
    _copy(source, directory, _MODEL)
    config = read_json(source / "config.json")
    key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
    if dtype is not None and config.get(key) != dtype:
        text = json.dumps(_with_dtype(config, key, dtype), indent=2, ensure_ascii=False) + "\n"
        (directory / "config.json").write_text(text, encoding="utf-8")


def _with_dtype(config: dict[str, Any], key: str, dtype: str) -> dict[str, Any]:
    """The config with another dtype, also in those inside it that name one."""
    inner = {
        name: _with_dtype(value, key, dtype) if isinstance(value, dict) and key in value else value
        for name, value in config.items()
    }
    return {**inner, key: dtype}


def _copy(source: Path, directory: Path, patterns: tuple[str, ...]) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns):
            shutil.copyfile(path, directory / path.name)
