"""`python -m rl_lightning compare`: a table, a picture and the figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from rl_lightning.comparison.comparing import compare, table
from rl_lightning.comparison.evaluating import evaluate
from rl_lightning.comparison.picture import draw
from rl_lightning.comparison.subjects import Subject, find_subjects
from rl_lightning.types import UserError
from rl_lightning.whole_files import unused, write_json


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"compare: {message}")


def main(args: Sequence[str]) -> None:
    """Compare, print the table, and say where the rest is.

    Args:
        args: names, `--out DIR`, and maybe `--evaluate` with everything after it for `validate`.

    Raises:
        UserError: nothing to compare, or what cannot be compared.
    """
    at = args.index("--evaluate") if "--evaluate" in args else len(args)
    given = _parser().parse_args(args[:at])
    names = list(given.names)
    if len(names) < 2:
        raise UserError("compare: takes two or more of: run directories, checkpoints, evaluation files, base")
    if len(set(names)) < len(names):
        raise UserError("compare: the same name twice")
    out = unused(Path(given.out))
    subjects = _evaluated(names, args[at + 1 :], out) if at < len(args) else find_subjects(names)
    comparison = compare(subjects)
    write_json(out / "comparison.json", comparison)
    draw(comparison, out / "comparison.png")
    print(table(comparison))
    print(f"picture and figures: {out}")


def _evaluated(names: list[str], settings: Sequence[str], out: Path) -> list[Subject]:
    files = evaluate(names, settings, out)
    found = find_subjects(list(files.values()))
    return [replace(subject, label=name) for subject, name in zip(found, files, strict=True)]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m rl_lightning compare",
        description="Paired differences on the same problems, to the first that is named.",
        epilog="--evaluate --config FILE …: evaluate each first, on the suite of that config; all that follows goes to "
        "`validate`. Then an adapter directory or a model's name will do as well.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="RUN_OR_CHECKPOINT",
        help="a run directory (its newest evaluation), a run's checkpoint (that of its step), an evaluation file, or `base`",
    )
    parser.add_argument("--out", default="outputs/comparison", help="directory for comparison.json and comparison.png")
    return parser
