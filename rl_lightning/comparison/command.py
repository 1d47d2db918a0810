"""The command `python -m rl_lightning compare`: print a table, and write the metrics as JSON and a picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rl_lightning.checkpointing.atomic_files import unused_path, write_json
from rl_lightning.checkpointing.checkpoints import resolve_word
from rl_lightning.comparison.comparing import compare, table
from rl_lightning.comparison.contenders import Contender, find_contenders
from rl_lightning.comparison.evaluating import evaluate
from rl_lightning.comparison.forest_plot import draw
from rl_lightning.types import UserError


def main(args: argparse.Namespace) -> None:
    """Compare, print the table, and say where the files are.

    Args:
        args: the command line, as `cli.arguments` parses it.

    Raises:
        UserError: there is nothing to compare, or something that cannot be compared.
    """
    names = [resolve_word(name) for name in args.names]
    if len(set(names)) < len(names):
        raise UserError("compare: the same name twice")
    out = unused_path(args.out)
    contenders = find_contenders(names) if args.evaluate is None else _evaluated(names, args.evaluate, out)
    comparison = compare(contenders)
    write_json(out / "comparison.json", comparison)
    draw(comparison, out / "comparison.png")
    print(table(comparison))
    print(f"comparison.json and comparison.png are in {out}")


def _evaluated(names: list[str], settings: Sequence[str], out: Path) -> list[Contender]:
    files = evaluate(names, settings, out)
    found = find_contenders(list(files.values()))
    return [replace(contender, label=name) for contender, name in zip(found, files, strict=True)]
