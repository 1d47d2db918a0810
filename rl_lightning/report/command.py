"""The command `python -m rl_lightning report RUN…`: print the learning curve, and write or serve the page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from rl_lightning.checkpointing.atomic_files import write_atomically
from rl_lightning.report.learning_curve import draw, table
from rl_lightning.report.page import OURS, page
from rl_lightning.report.run_files import Run, read_runs
from rl_lightning.report.verdict import verdict
from rl_lightning.types import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"report: {message}")


def main(args: list[str], program: str = "python -m rl_lightning") -> None:
    """Write the page, or with --watch serve it.

    Args:
        args: the command line after `report`.
        program: what the user called, for the usage.

    Raises:
        UserError: no run, no such run, invalid arguments, or the page would replace a file that is not a page.
    """
    parser = _Parser(f"{program} report", description="Write one HTML file that shows runs, or serve it.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory; several are compared")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: report.html in the run; for several runs, in the current directory",
    )
    parser.add_argument(
        "--watch", action="store_true", help="serve it on 127.0.0.1 and refresh it while a run continues"
    )
    given = parser.parse_args(args)
    if given.watch:
        if given.out:
            raise UserError("report: --watch serves the page and --out writes it; give one of them")
        from rl_lightning.report.watch import serve

        serve(given.runs)
        return
    runs = read_runs(given.runs)
    for run in runs:
        _say(run, len(runs) > 1)
    if len(runs) == 1 and runs[0].evaluations and not given.out:
        draw(runs[0].path, given.runs[0] / "learning_curve.png")
        print(f"picture: {given.runs[0] / 'learning_curve.png'}")
    out = given.out or (given.runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    _refuse_other_file(out)
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
