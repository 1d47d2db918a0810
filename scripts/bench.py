"""Compare rl_lightning with TRL's GRPOTrainer on the same work, and both with what the machine could do.

    pip install -c constraints.txt -e .[bench]
    python scripts/bench.py --workload tiny      # one workload; again for several
    python scripts/bench.py --learn              # time to a held-out accuracy on the quickstart, three seeds
    python scripts/bench.py --learn smollm2-135m --target peer --limit 30   # to what TRL reaches in 30 steps
    python scripts/bench.py --workload smollm2 --vllm-python ~/vllm/bin/python   # and ours with rollouts by vLLM
    python scripts/bench.py --table              # write all available results into docs/performance.md

rl_lightning ("ours") and TRL ("peer") run as separate processes, alternately, with the same model, prompts, group size, lengths and
adapters. Each workload leaves one JSON file, scaling one per point; no file is overwritten. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmark.learning import RACES
from benchmark.rounds import SIDES, Race, compare, require_trl, time_to_target
from benchmark.tables import learning_table, scaling_table, workload_table
from benchmark.workloads import SCALING, WORKLOADS
from doc_sections import replace_section

from rl_lightning.checkpointing.atomic_files import write_json
from rl_lightning.types import UserError

ROOT = Path(__file__).parents[1]
POINTS = {point.name: point for point in SCALING}


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*WORKLOADS, "scaling"]
    parser.add_argument("--workload", choices=names, action="append", default=[], help="scaling measures ours only")
    parser.add_argument(
        "--learn", choices=RACES, nargs="?", const=RACES[0], help="time to a held-out accuracy with a config"
    )
    parser.add_argument("--table", action="store_true", help="write the tables of --page from all results")
    parser.add_argument("--rounds", type=int, default=2, help="processes per side")
    parser.add_argument("--steps", type=int, default=0, help="counted steps per process; 0: the workload's own number")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds for --learn")
    parser.add_argument("--every", type=int, default=2, help="steps between two evaluations with --learn")
    parser.add_argument(
        "--target",
        type=_target,
        default=0.85,
        help="accuracy at which --learn ends; peer: what TRL reaches at the limit",
    )
    parser.add_argument("--limit", type=int, default=0, help="the most steps of --learn; 0: the config's")
    parser.add_argument(
        "--vllm-python", type=Path, help="interpreter of an environment with vLLM, for ours on vLLM too"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", help="folder of the JSON files")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md")
    args = parser.parse_args(argv)
    if not (args.workload or args.learn or args.table):
        parser.error("nothing to do: --workload, --learn or --table")
    try:
        measure(args)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _target(text: str) -> float | None:
    return None if text == "peer" else float(text)


def measure(args: argparse.Namespace) -> None:
    """Measure the workloads that the command line names, then write the tables if it says so."""
    if args.target is None and (args.limit < 1 or args.limit % args.every):
        raise UserError("--target peer: set --limit to the peer's number of steps, a multiple of --every")
    names = [*dict.fromkeys(args.workload), *([learn_name(args.learn)] if args.learn else [])]
    if any(name != "scaling" for name in names):
        require_trl()
    points = [
        point for point in POINTS if not result_file(args.results, point).exists()
    ]  # it continues where it stopped
    if "scaling" in names and points:
        at = names.index("scaling")
        names[at : at + 1] = points
    for name in names:  # before hours of work
        if result_file(args.results, name).exists() or name == "scaling":
            path = result_file(args.results, list(POINTS)[-1] if name == "scaling" else name)
            raise UserError(f"{path}: exists already; move it away, or choose another --results")
    for name in names:
        if section_of(name) == "learn":
            race = Race(args.learn, args.every, args.target, args.limit)
            result = time_to_target(race, args.seeds, args.threads)
        else:
            workload, sides = (POINTS | WORKLOADS)[name], SIDES[:1] if name in POINTS else SIDES
            vllm = None if name in POINTS else args.vllm_python
            result = compare(workload, args.rounds, args.steps or workload.steps, args.threads, sides, vllm)
        write_json(result_file(args.results, name), result)
        print(table(section_of(name), {name: result}), flush=True)
    if args.table:
        write_tables(args.results, args.page)


def result_file(results: Path, name: str) -> Path:
    """Where a workload's results go."""
    return results / f"bench_{name.replace(' ', '_').replace(',', '')}.json"


def learn_name(config: str) -> str:
    """The name of the result of training by a config: learn, or with the config's name behind it."""
    return "learn" if config == RACES[0] else f"learn {config}"


LEARNED = tuple(learn_name(config) for config in RACES)


def section_of(name: str) -> str:
    """The section of the page that shows a result: scaling, learn, or workloads."""
    return "scaling" if name in POINTS else "learn" if name in LEARNED else "workloads"


def table(section: str, results: dict[str, dict[str, Any]]) -> str:
    """The Markdown of a section of the page: scaling, learn, or the workloads that both sides run."""
    if section == "learn":
        return "\n\n".join(learning_table(result) for result in results.values())
    return scaling_table(results) if section == "scaling" else workload_table(results)


def write_tables(results: Path, page: Path) -> None:
    """Write every available result between its marks in the page.

    Raises:
        UserError: there is no result.
    """
    names = [*WORKLOADS, *POINTS, *LEARNED]
    found = {
        name: json.loads(result_file(results, name).read_text(encoding="utf-8"))
        for name in names
        if result_file(results, name).is_file()
    }
    if not found:
        raise UserError(f"{results}: no results of the benchmark; measure first: --workload {names[0]}")
    for section in sorted({section_of(name) for name in found}):
        replace_section(page, section, table(section, {k: v for k, v in found.items() if section_of(k) == section}))


if __name__ == "__main__":
    sys.exit(main())
