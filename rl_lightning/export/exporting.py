"""Write an export beside its place, verify it, write its card, and move it there; nothing half-written is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig, GenerationConfig

from rl_lightning.checkpointing.atomic_files import unused_path, write_json
from rl_lightning.checkpointing.model_files import GENERATION, read_json
from rl_lightning.export.base_files import copy_tokenizer
from rl_lightning.export.card import faults_of, write_card
from rl_lightning.export.default_prompt import template_with_prompt, write_template
from rl_lightning.export.formats import Format
from rl_lightning.export.loaded import Loaded
from rl_lightning.export.run_prompts import RunPrompts
from rl_lightning.export.source import Source
from rl_lightning.export.verification import Verification, Verifier
from rl_lightning.policy.end_tokens import end_token_ids, listed
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.types import UserError, first_line

_SPARE_BYTES = 64e6
"""Room for tokenizer, card and picture."""


def export(
    source: Source, form: Format, to: Path, verified_by: int | None, verified: bool = True
) -> tuple[Path, Mapping[str, Verification] | None]:
    """Export a checkpoint.

    Args:
        source: the checkpoint and its run.
        form: in which form.
        to: the directory to make.
        verified_by: problems of the evaluation to verify with; None: all.
        verified: whether to verify at all.

    Returns:
        the directory, which has another name where the verification found a fault; and what it found of each part.

    Raises:
        UserError: it cannot be written, or not verified; then nothing is left of it.
    """
    refuse_existing(to)
    _refuse_small_disk(to, form.nbytes())
    prompts = RunPrompts(source)
    verifier = Verifier(source, prompts, verified_by) if verified else None
    temporary = _beside(to)
    made = [parent for parent in temporary.parents if not parent.exists()]
    try:
        temporary.mkdir(parents=True)
        write_files(source, form, prompts, temporary)
        parts = form.parts(temporary)
        found = None if verifier is None else verifier({name: partial(_loaded, load) for name, load in parts.items()})
        write_card(source, form, prompts, temporary, found, to.name)
        _flush(temporary)
        failed = found is not None and bool(faults_of(found))
        place = unused_path(to.with_name(f"{to.name}.failed")) if failed else to
        temporary.rename(place)
    except OSError as error:
        raise UserError(f"export: {to} cannot be written: {error.strerror or first_line(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
    return place, found


def refuse_existing(to: Path) -> None:
    """Refuse a place where something is.

    Raises:
        UserError: something is there.
    """
    if to.exists() or to.is_symlink():
        raise UserError(f"export: {to} exists already, and is left as it is; name another directory by --to")
    if _beside(to).exists():
        raise UserError(f"export: {_beside(to)} is of an export that still runs, or was killed; in that case remove it")


def _beside(to: Path) -> Path:
    return to.with_name(f".{to.name}.tmp")


def _loaded(load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    except UserError:
        raise
    except Exception as error:  # whatever the loading library raises; out of memory too
        raise UserError(
            f"export: what was written cannot be loaded to verify it: {type(error).__name__}: {first_line(error)}; --no-verify "
            "leaves that out"
        ) from error


def write_files(source: Source, form: Format, prompts: RunPrompts, directory: Path) -> None:
    """Write everything but the card."""
    copy_tokenizer(source.model_directory, directory)
    tokenizer = load_tokenizer(source.policy.model_name_or_path)
    template = template_with_prompt(tokenizer, source.prompt, bool(prompts.examples))
    if template is not None:
        write_template(directory, template)
    write_generation_config(source, tokenizer, directory)
    form.write(directory)


def write_generation_config(source: Source, tokenizer: Any, directory: Path) -> None:
    """Write the base's generation config with the end tokens that the run used; the same bytes where it has them already."""
    base, file = source.model_directory, directory / GENERATION
    config = AutoConfig.from_pretrained(base)
    has_one = (base / GENERATION).is_file()
    generation = GenerationConfig.from_pretrained(base) if has_one else GenerationConfig.from_model_config(config)
    ends = end_token_ids(SimpleNamespace(config=config, generation_config=generation), tokenizer).tolist()
    if has_one and sorted(listed(generation.eos_token_id)) == ends:
        shutil.copyfile(base / GENERATION, file)
        return
    found = read_json(base / GENERATION) if has_one else {"pad_token_id": tokenizer.pad_token_id}
    write_json(file, found | {"eos_token_id": ends[0] if len(ends) == 1 else ends})


def _refuse_small_disk(to: Path, needed: int) -> None:
    there = next(each for each in to.absolute().parents if each.exists())
    free = shutil.disk_usage(there).free
    if free < needed + _SPARE_BYTES:
        raise UserError(
            f"export: {to} needs {needed / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB free; name another place by --to"
        )


def _flush(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
