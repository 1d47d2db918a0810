"""The command `python -m rl_lightning compare`: print a table, and write the metrics as JSON and a picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from rl_lightning.checkpointing.atomic_files import unused_path, write_json
from rl_lightning.checkpointing.checkpoints import resolve_word
from rl_lightning.comparison.comparing import compare, table
from rl_lightning.comparison.contenders import Contender, find_contenders
from rl_lightning.comparison.evaluating import evaluate
from rl_lightning.comparison.forest_plot import draw
from rl_lightning.types import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"compare: {message}")


def main(args: Sequence[str], program: str = "python -m rl_lightning") -> None:
    """Compare, print the table, and say where the files are.

    Args:
        args: names, `--out DIR`, and optionally `--evaluate`; everything after that is passed to `validate`.
        program: what the user called, for the usage.

    Raises:
        UserError: there is nothing to compare, or something that cannot be compared.
    """
    at = args.index("--evaluate") if "--evaluate" in args else len(args)
    given = _parser(program).parse_args(args[:at])
    names = [resolve_word(name) for name in given.names]
    if len(names) < 2:
        raise UserError("compare: takes two or more of: run directories, checkpoints, evaluation files, base")
    if len(set(names)) < len(names):
        raise UserError("compare: the same name twice")
    out = unused_path(Path(given.out))
    contenders = _evaluated(names, args[at + 1 :], out) if at < len(args) else find_contenders(names)
    comparison = compare(contenders)
    write_json(out / "comparison.json", comparison)
    draw(comparison, out / "comparison.png")
    print(table(comparison))
    print(f"comparison.json and comparison.png are in {out}")


def _evaluated(names: list[str], settings: Sequence[str], out: Path) -> list[Contender]:
    files = evaluate(names, settings, out)
    found = find_contenders(list(files.values()))
    return [replace(contender, label=name) for contender, name in zip(found, files, strict=True)]


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"{program} compare",
        description="Paired differences to the first one that is named, on the same problems.",
        epilog="--evaluate --config FILE …: evaluate each of them first, on the suite of that config; everything after\n"
        "--evaluate is passed to `validate`. Then an adapter directory or a model's name can take part too.\n\n"
        f"examples:\n  {program} compare outputs/first outputs/second base\n"
        f"  {program} compare outputs/first/best Qwen/Qwen2.5-3B-Instruct --evaluate --config qwen2.5-3b",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="RUN_OR_CHECKPOINT",
        help="a run directory (its newest evaluation), a run's checkpoint (the evaluation at its step; RUN/best is one too), "
        "an evaluation file, or `base` (step 0)",
    )
    parser.add_argument("--out", default="outputs/comparison", help="directory for comparison.json and comparison.png")
    return parser
