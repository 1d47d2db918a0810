"""Compare objectives, curricula and dynamic sampling on the bundled tiny policy: several seeds each, one process per run.

    python scripts/ablations.py objectives                       # an experiment of configs/ablations/, or your own file
    python scripts/ablations.py hard --variants plain curriculum --seeds 0 1 2
    python scripts/ablations.py --table                          # write all available results into docs/ablations.md

Each run leaves one JSON file. A run whose file exists is not repeated: after Ctrl-C, or a failure, the same command continues.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from pathlib import Path

from ablation import experiments, picture
from ablation.experiments import Experiment
from ablation.progress import Progress
from ablation.results import is_done, results_of
from ablation.runner import Runner
from ablation.tables import table
from doc_sections import replace_section
from machine import available_cores

from rl_lightning.types import UserError

ROOT = Path(__file__).parents[1]
STOPPED = 130
"""Exit status after Ctrl-C, as shells give it."""


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status: 1 if a run failed, 2 after a user error, 130 after Ctrl-C."""
    args = _arguments(argv)
    try:
        experiment = Experiment.read(args.experiment) if args.experiment else None
        failed = run_experiment(experiment, args) if experiment else 0
        if args.table:
            write_tables(experiment, args.results, args.page)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; runs that had ended are kept, and the same command goes on", file=sys.stderr)
        return STOPPED
    return 1 if failed else 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", help=f"{', '.join(experiments.names())}, or a .yaml file")
    parser.add_argument("--variants", nargs="+", default=[], help="variants of the experiment to run; default: all")
    parser.add_argument("--seeds", type=_seed, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=available_cores(),
        help="number of runs at a time; default: the number of cores",
    )
    parser.add_argument("--threads", type=_positive, default=1, help="number of threads per run")
    parser.add_argument("--seconds", type=float, help="seconds of training per run; default: the experiment's")
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "outputs" / "ablations",
        help="has a folder for each experiment; runs that are there are not repeated",
    )
    parser.add_argument("--table", action="store_true", help="write the tables and pictures of --page from all results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "ablations.md")
    args = parser.parse_args(argv)
    if not (args.experiment or args.table):
        parser.error("nothing to do: name an experiment, or --table")
    if args.seconds is not None and not 0 < args.seconds < math.inf:
        parser.error("--seconds must be above 0, and finite")
    return args


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("it must be 0 or more")
    return number


def run_experiment(experiment: Experiment, args: argparse.Namespace) -> int:
    """Do the runs that are not done yet, then print the experiment's table; return the number that failed.

    Raises:
        UserError: an unknown variant or setting, or a result of other settings where one of these would be written.
    """
    variants, seeds = experiment.select_variants(args.variants), list(dict.fromkeys(args.seeds))
    wanted = experiments.runs(experiment, variants, seeds, args.seconds or experiment.seconds, args.threads)
    to_do = [run for run in wanted if not is_done(run, args.results)]
    print(f"{experiment.name}: {len(wanted)} runs, {len(wanted) - len(to_do)} of them done already", flush=True)
    failed = 0
    if to_do:
        with Progress(len(to_do)) as progress:
            failed = Runner(args.results, progress).do(to_do, args.jobs)
    if results := results_of(experiment, args.results):
        print(table(experiment, results))
    return failed


def write_tables(experiment: Experiment | None, results: Path, page: Path) -> None:
    """Put the tables of all experiments with results between their marks in the page, and their pictures next to it.

    Args:
        experiment: one besides the shipped ones, or None.
        results: folder of the results.
        page: the page.

    Raises:
        UserError: there is no result, or the page has no marks for an experiment.
    """
    known = {name: Experiment.read(name) for name in experiments.names()}
    if experiment is not None:
        known[experiment.name] = experiment
    found = {name: mine for name, each in known.items() if (mine := results_of(each, results))}
    if not found:
        raise UserError(f"{results}: no results of an experiment; run one first: {', '.join(known)}")
    for name, mine in found.items():
        curves = page.with_name(f"{page.stem}_{name}.png")
        replace_section(page, name, f"{table(known[name], mine)}\n\n![{name}: held-out accuracy]({curves.name})")
        picture.draw(mine, curves)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the runs that are under way, as Ctrl-C does
    sys.exit(main())
