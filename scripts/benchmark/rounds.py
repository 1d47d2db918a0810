"""Both sides of a workload in turn, each time as a process of its own."""

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

from machine import environment, machine

from benchmark.table import learnt, summary
from benchmark.work import Shape, Workload, make_model
from rl_lightning.types import UserError

SIDES = ("ours", "peer")
WARM_UP_STEPS = 1
"""Of each of our processes: workers start, caches and the allocator fill."""


def compare(
    workload: Workload,
    rounds: int,
    steps: int,
    threads: int,
    sides: tuple[str, ...] = SIDES,
) -> dict[str, Any]:
    """One workload's results.

    Args:
        workload: what to do.
        rounds: processes a side. The first accounts for its tensors in its warm-up step, if it has one, and the others show
            what is resident; where there is only one and a peer to be compared with, it shows what is resident.
        steps: counted steps a process.
        threads: that torch computes on.
        sides: who takes part.
    """
    reports: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as directory:
        model = make_model(workload, Path(directory) / "model")
        rates = run("limits", threads, model=model)
        for number in range(rounds):
            for side in sides:
                warm_up = workload.peer_warm_up if side == "peer" else WARM_UP_STEPS
                options = {"workload": json.dumps(asdict(workload)), "model": model, "seed": number, "steps": steps}
                account = int(number == 0 and warm_up > 0 and (rounds > 1 or len(sides) == 1))
                reports[side].append(run(side, threads, **options, warm_up=warm_up, account=account))
        return {"machine": machine(threads), **summary(workload, Shape.of(model), reports, rates)}


def race(seeds: list[int], every: int, target: float, threads: int) -> dict[str, Any]:
    """The quickstart by both sides, seed by seed, until a held-out accuracy is reached."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for seed in seeds:
        for side in SIDES:
            began = time.perf_counter()
            course = run(f"learn_{side}", threads, seed=seed, every=every, target=target)
            runs[side].append(course | {"process_seconds": time.perf_counter() - began})
    return {"machine": machine(threads), "target": target, "every": every, **learnt(runs)}


def run(module: str, threads: int, **options: Any) -> dict[str, Any]:
    """Run a module of `benchmark` as a process of its own; what it wrote to its --out file."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out.json"
        words = [sys.executable, "-m", f"benchmark.{module}", "--threads", str(threads), "--out", str(out)]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        done = subprocess.run(
            words, env=environment(threads), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise RuntimeError(f"benchmark.{module} failed:\n{done.stderr}")
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return result


def require_the_peer() -> None:
    """Refuse to begin without TRL.

    Raises:
        UserError: it is not installed.
    """
    try:
        version("trl")
    except PackageNotFoundError as error:
        raise UserError("the peer, trl, is not installed: pip install -c constraints.txt -e .[bench]") from error
