"""Measure model families against plain transformers and PEFT, on small random models of theirs.

    python scripts/models.py                                # all families, as a Markdown table
    python scripts/models.py --only "Gemma 2" qwen3_next    # some
    python scripts/models.py --listed --write docs/models.md

The exit status is 1 if a family is wrong or crashes; a family that is refused in one line is not wrong.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import torch
import transformers
from model_families.families import FAMILIES, LISTED, SPARE, UNLISTED
from model_families.measure import Row, row
from model_families.table import page, table

from rl_lightning.checkpointing.atomic_files import write_atomically


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="NAME", help="these families")
    parser.add_argument("--listed", action="store_true", help="the families that the documentation lists")
    parser.add_argument("--quantization", nargs="+", choices=["nf4", "none"], default=["nf4", "none"])
    parser.add_argument("--dtype", choices=["float32", "both"], default="both", help="both: bf16 too")
    parser.add_argument("--spare", type=int, default=SPARE, help="ids that the tokenizer has no words for")
    parser.add_argument("--write", type=Path, help="write the table as this page")
    args = parser.parse_args(argv)
    if args.write and args.only:
        parser.error("--write: a page shows all families, or with --listed the listed ones; leave out --only")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    names = args.only or (LISTED if args.listed else FAMILIES)
    rows: list[Row] = []
    for name in names:
        for quantization in args.quantization:
            started = time.perf_counter()
            rows.append(row(name, FAMILIES[name], quantization, args.dtype == "both", args.spare))
            seconds = time.perf_counter() - started
            print(f"{name}, {quantization}: {rows[-1].verdict} ({seconds:.1f} s)", file=sys.stderr, flush=True)
    print(table(rows))
    if args.write:
        write_atomically(args.write, page(rows, set(UNLISTED)))
    return int(any(each.failed for each in rows))


if __name__ == "__main__":
    sys.exit(main())
