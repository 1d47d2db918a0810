"""The command `python -m rl_lightning export`: a policy as others load it, verified, with a model card."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import yaml

from rl_lightning.checkpointing.checkpoints import find_checkpoint
from rl_lightning.cli.single_prompt import read_settings
from rl_lightning.export.adapter_format import Adapter
from rl_lightning.export.card import CARD, faults_of, verification_table
from rl_lightning.export.exporting import export, refuse_existing
from rl_lightning.export.formats import Format
from rl_lightning.export.gguf_format import GGUF
from rl_lightning.export.merged_format import Merged
from rl_lightning.export.sharing import share
from rl_lightning.export.source import Source
from rl_lightning.export.verification import Verification
from rl_lightning.hub.pushing import Repository, look
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.config import DTYPES

FORMATS: dict[str, type[Format]] = {form.name: form for form in (Adapter, Merged, GGUF)}


def main(args: argparse.Namespace) -> int:
    """Export, and print what the verification found.

    Args:
        args: the command line, as `cli.arguments` parses it.

    Returns:
        0, or 1 where it found a fault.

    Raises:
        UserError: a mistake in the config or in the checkpoint.
    """
    to = args.to.expanduser()
    refuse_existing(to)
    repository = None if args.push is None else Repository(args.push, private=not args.public)
    if repository is not None and not args.dry_run:
        look(repository)  # what the hub refuses is known before the work
    source = read_source(args.checkpoint.expanduser(), args.config, args.base)
    dtype = None if args.dtype is None else DTYPES[args.dtype]
    form = FORMATS[args.format](source, dtype) if args.quantize is None else GGUF(source, dtype, args.quantize)
    place, found = export(source, form, to, args.verify_problems, not args.no_verify)
    _print_found(place, to, found)
    if found is not None and faults_of(found):
        return 1
    if repository is not None:
        print(share(place, repository, args.dry_run))
    return 0


def _print_found(place: Path, to: Path, found: Mapping[str, Verification] | None) -> None:
    if found is None:
        print(f"{place}: not verified; {CARD} says so")
        return
    print("\n\n".join(f"{name}\n\n" * bool(name) + verification_table(each) for name, each in found.items()))
    faults = faults_of(found)
    for fault in faults:
        print(f"fault: {fault}")
    print(f"{place}: FAILED its verification, so it is not at {to}" if faults else f"{place}: verified")


def read_source(path: Path, config: Path | None, base: str | None) -> Source:
    """A checkpoint with the settings of its run.

    Args:
        path: a checkpoint, or a run for its newest one.
        config: the settings; None: the run's.
        base: name or directory of the base's full-precision weights; None: the run's model.

    Raises:
        UserError: there is no such checkpoint, or its settings cannot be read.
    """
    checkpoint = find_checkpoint(path)
    config = config or checkpoint.resolve().parent / "config.yaml"
    settings = read_settings(config, "export", checkpoint, base)
    return Source(
        checkpoint,
        settings.policy,
        base or _trained_model(config),
        settings.sampling,
        settings.prompt,
        settings.datasets,
        settings.eval_seed,
        settings.eval_num_samples,
    )


def _trained_model(config: Path) -> str:
    """The model that a config names, which `read_settings` has read."""
    policy = ((yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("model") or {}).get("policy") or {}
    return str(policy.get("model_name_or_path", PolicyConfig.model_name_or_path))
