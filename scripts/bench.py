"""Ours against TRL's GRPOTrainer on the same work, and both against what the machine could do.

    pip install -c constraints.txt -e .[bench]
    python scripts/bench.py --out docs/results/cpu.json --page docs/performance.md    # everything
    python scripts/bench.py --workload tiny --rounds 1                                # one workload, once

Every round runs ours and the peer as two processes, one after the other, with the same model directory, prompts, group size,
lengths and adapters; figures are medians over all rounds. Results are added to the file as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.table import WARM_UP_STEPS, markdown, put_into, summary
from benchmark.work import WORKLOADS, Shape, Workload, make_model

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=list(WORKLOADS), action="append", help="again for several; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="processes a side")
    parser.add_argument("--steps", type=int, default=0, help="counted steps a process; 0: the workload's own number")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file; results of other workloads in it are kept")
    parser.add_argument("--page", type=Path, help="page whose section `bench` gets the table")
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out and args.out.is_file() else {}
    for name in args.workload or WORKLOADS:
        results[name] = measure(WORKLOADS[name], args.rounds, args.steps or WORKLOADS[name].steps, args.threads)
        print(markdown({name: results[name]}), flush=True)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if args.page:
        put_into(args.page, "bench", markdown(results))


def measure(
    workload: Workload, rounds: int, steps: int, threads: int, sides: tuple[str, ...] = ("ours", "peer")
) -> dict[str, Any]:
    """All rounds of one workload; the first one of each side makes one step more, whose tensors are accounted for."""
    reports: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as directory:
        model = make_model(workload, Path(directory) / "model")
        rates = run("limits", threads, model=model)
        for number in range(rounds):
            for side in sides:
                last = WARM_UP_STEPS + steps
                account = {"account_step": last} if number == 0 else {}
                work = {"workload": json.dumps(asdict(workload)), "model": model, "seed": number}
                reports[side].append(run(side, threads, **work, steps=last + (number == 0), **account))
        return summary(workload, Shape.of(model), reports, rates)


def run(module: str, threads: int, **options: Any) -> dict[str, Any]:
    """Run a module of `benchmark` as a process of its own; what it wrote to its --out file."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out.json"
        words = [sys.executable, "-m", f"benchmark.{module}", "--threads", str(threads), "--out", str(out)]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
        done = subprocess.run(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{module} failed:\n{done.stderr}")
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return result


if __name__ == "__main__":
    main()
