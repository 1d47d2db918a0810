"""Run both sides of a benchmark alternately, each time in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from machine import machine_info, process_environment

from benchmark.tables import learning_summary, workload_summary
from benchmark.workloads import Shape, Workload, make_model
from rl_lightning.types import UserError

SIDES = ("ours", "peer")
WARM_UP_STEPS = 1
"""Steps of each of our processes that are not counted: workers start, caches and the allocator fill."""


def compare(
    workload: Workload,
    rounds: int,
    steps: int,
    threads: int,
    sides: tuple[str, ...] = SIDES,
) -> dict[str, Any]:
    """Measure one workload.

    Args:
        workload: the work.
        rounds: processes per side. The first accounts for its tensors in its warm-up step, if it has one, and the others measure
            what is resident; where there is only one and a peer to be compared with, it measures what is resident.
        steps: counted steps per process.
        threads: number of threads that torch computes on.
        sides: the sides that are measured.
    """
    reports: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as directory:
        model = make_model(workload, Path(directory) / "model")
        rates = run("roofline", threads, model=model)
        for number in range(rounds):
            for side in sides:
                warm_up = workload.peer_warm_up if side == "peer" else WARM_UP_STEPS
                options = {"workload": json.dumps(asdict(workload)), "model": model, "seed": number, "steps": steps}
                account = int(number == 0 and warm_up > 0 and (rounds > 1 or len(sides) == 1))
                reports[side].append(run(side, threads, **options, warm_up=warm_up, account=account))
        return {"machine": machine_info(threads), **workload_summary(workload, Shape.of(model), reports, rates)}


def time_to_target(seeds: list[int], every: int, target: float, threads: int) -> dict[str, Any]:
    """Train on the quickstart with both sides, seed by seed, until a held-out accuracy is reached."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for seed in seeds:
        for side in SIDES:
            began = time.perf_counter()
            measured = run(f"learn_{side}", threads, seed=seed, every=every, target=target)
            runs[side].append(measured | {"process_seconds": time.perf_counter() - began})
    return {"machine": machine_info(threads), "target": target, "every": every, **learning_summary(runs)}


def run(module: str, threads: int, **options: Any) -> dict[str, Any]:
    """Run a module of `benchmark` in a separate process; returns what it wrote to its --out file."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out.json"
        command = [sys.executable, "-m", f"benchmark.{module}", "--threads", str(threads), "--out", str(out)]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        done = subprocess.run(
            command, env=process_environment(threads), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise RuntimeError(f"benchmark.{module} failed:\n{done.stderr}")
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return result


def require_trl() -> None:
    """Refuse to begin without TRL.

    Raises:
        UserError: it is not installed.
    """
    try:
        version("trl")
    except PackageNotFoundError as error:
        raise UserError("the peer, trl, is not installed: pip install -c constraints.txt -e .[bench]") from error
