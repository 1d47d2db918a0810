"""The command `python -m rl_lightning report RUN…`: print the learning curve, and write or serve the page."""

from __future__ import annotations

import argparse
from pathlib import Path

from rl_lightning.checkpointing.atomic_files import write_atomically
from rl_lightning.report.learning_curve import draw, table
from rl_lightning.report.page import OURS, page
from rl_lightning.report.run_files import Run, read_runs
from rl_lightning.report.verdict import verdict
from rl_lightning.types import UserError


def main(given: argparse.Namespace) -> None:
    """Write the page, or with --watch serve it.

    Args:
        given: the command line, as `cli.arguments` parses it.

    Raises:
        UserError: no such run, or the page would replace a file that is not a page.
    """
    if given.watch:
        from rl_lightning.report.watch import serve

        serve(given.runs)
        return
    runs = read_runs(given.runs)
    out = given.out or (given.runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    _refuse_other_file(out)
    for run in runs:
        _say(run, len(runs) > 1)
    if len(runs) == 1 and runs[0].evaluations and not given.out:
        draw(runs[0].path, given.runs[0] / "learning_curve.png")
        print(f"picture: {given.runs[0] / 'learning_curve.png'}")
    write_atomically(out, page(runs))
    print(f"page: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _say(run: Run, named: bool) -> None:
    answer = verdict(run)
    if run.evaluations:
        print(table(run.path))
    name = f"{run.name}: " if named else ""
    print(f"{name}{answer['word']} {answer['text']}")
    for what in run.missing:
        print(f"{name}{what}")


def _refuse_other_file(out: Path) -> None:
    """Refuse to replace anything but an older page."""
    if out.is_dir():
        raise UserError(f"--out {out}: is a directory; name a file, such as {out / 'report.html'}")
    if out.exists() and OURS.encode() not in out.read_bytes()[:20_000]:
        raise UserError(f"{out}: exists already and is not a page of this program; name another file with --out")
