"""Objective x curriculum x sampling, compared on the embedded tiny policy: several seeds each, one process a run.

    python scripts/lab.py objectives                       # a course of configs/laboratory/, or a file of yours
    python scripts/lab.py hard --variants plain curriculum --seeds 0 1 2
    python scripts/lab.py --table                          # all results at hand into docs/laboratory.md

Each run leaves one JSON file. A run whose file is there is not made again: after Ctrl-C, or a failure, the same command goes on.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from pathlib import Path
from typing import Any

from laboratory import courses, picture
from laboratory.board import Board
from laboratory.courses import Course
from laboratory.crew import Crew
from laboratory.results import is_done, results_of
from laboratory.standings import table
from machine import cores
from pages import put_into

from rl_lightning.types import UserError

ROOT = Path(__file__).parents[1]
STOPPED = 130
"""Exit status after Ctrl-C, as shells give it."""


def main(words: list[str] | None = None) -> int:
    """The command line; the exit status: 1 where a run failed, 2 after a mistake of the user's, 130 after Ctrl-C."""
    args = _arguments(words)
    try:
        course = Course.read(args.course) if args.course else None
        failed = work(course, args) if course else 0
        if args.table:
            write_tables(course, args.results, args.page)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; runs that had ended are kept, and the same command goes on", file=sys.stderr)
        return STOPPED
    return 1 if failed else 0


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("course", nargs="?", help=f"{', '.join(courses.names())}, or a .yaml file")
    parser.add_argument("--variants", nargs="+", default=[], help="of the course; default: all")
    parser.add_argument("--seeds", type=_seed, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=_positive, default=cores(), help="runs at a time; default: as many as cores")
    parser.add_argument("--threads", type=_positive, default=1, help="that each run computes on")
    parser.add_argument("--seconds", type=float, help="of training a run; default: the course's")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "outputs" / "laboratory", help="holds a folder a course; resumed"
    )
    parser.add_argument("--table", action="store_true", help="write the tables and pictures of --page from all results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "laboratory.md")
    args = parser.parse_args(words)
    if not (args.course or args.table):
        parser.error("nothing to do: a course, or --table")
    if args.seconds is not None and not 0 < args.seconds < math.inf:
        parser.error("--seconds must be above 0, and finite")
    return args


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def _seed(word: str) -> int:
    number = int(word)
    if number < 0:
        raise argparse.ArgumentTypeError("it must be 0 or more")
    return number


def work(course: Course, args: Any) -> int:
    """Do the runs that are not done yet, then print the course's table; how many failed.

    Raises:
        UserError: an unknown variant or setting, or a result of other settings where one of these would be written.
    """
    variants, seeds = course.chosen(args.variants), list(dict.fromkeys(args.seeds))
    wanted = courses.runs(course, variants, seeds, args.seconds or course.seconds, args.threads)
    to_do = [run for run in wanted if not is_done(run, args.results)]
    print(f"{course.name}: {len(wanted)} runs, {len(wanted) - len(to_do)} of them done already", flush=True)
    failed = 0
    if to_do:
        with Board(len(to_do)) as board:
            failed = Crew(args.results, board).work(to_do, args.jobs)
    if results := results_of(course, args.results):
        print(table(course, results))
    return failed


def write_tables(course: Course | None, results: Path, page: Path) -> None:
    """Put the tables of all courses with results between their marks in the page, and their pictures beside it.

    Args:
        course: one besides the shipped ones, or None.
        results: folder of the results.
        page: the page.

    Raises:
        UserError: there is no result, or the page has no marks for a course.
    """
    known = {name: Course.read(name) for name in courses.names()} | ({course.name: course} if course else {})
    found = {name: mine for name, of in known.items() if (mine := results_of(of, results))}
    if not found:
        raise UserError(f"{results}: no results of the laboratory; run a course first: {', '.join(known)}")
    for name, mine in found.items():
        curves = page.with_name(f"{page.stem}_{name}.png")
        put_into(page, name, f"{table(known[name], mine)}\n\n![{name}: held-out accuracy]({curves.name})")
        picture.draw(mine, curves)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the runs that are under way, as Ctrl-C does
    sys.exit(main())
