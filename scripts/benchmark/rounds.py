"""Run both sides of a benchmark alternately, each time in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from machine import machine_info, process_environment

from benchmark.tables import learning_summary, workload_summary
from benchmark.workloads import Shape, Workload, make_model
from rl_lightning.types import UserError

SIDES = ("ours", "peer")
_UNREACHABLE = 2.0
"""No accuracy is that high."""

WARM_UP_STEPS = 1
"""Steps of each of our processes that are not counted: workers start, caches and the allocator fill."""


def compare(
    workload: Workload,
    rounds: int,
    steps: int,
    threads: int,
    sides: tuple[str, ...] = SIDES,
    vllm_python: Path | None = None,
) -> dict[str, Any]:
    """Measure one workload.

    Args:
        workload: the work.
        rounds: processes per side. The first accounts for its tensors in its warm-up step, if it has one, and the others measure
            what is resident; where there is only one and a peer to be compared with, it measures what is resident.
        steps: counted steps per process.
        threads: number of threads that torch computes on.
        sides: the sides that are measured.
        vllm_python: the interpreter of an environment with vLLM, which becomes a third side; None: it is not measured.
    """
    sides += ("vllm",) if vllm_python else ()
    reports: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as directory:
        model = make_model(workload, Path(directory) / "model")
        rates = run("roofline", threads, model=model)
        for number in range(rounds):
            for side in sides:
                warm_up = workload.peer_warm_up if side == "peer" else WARM_UP_STEPS
                options: dict[str, Any] = {
                    "workload": json.dumps(asdict(workload)),
                    "model": model,
                    "seed": number,
                    "steps": steps,
                }
                account = int(number == 0 and warm_up > 0 and (rounds > 1 or len(sides) == 1))
                python = vllm_python if side == "vllm" else None
                reports[side].append(run(side, threads, python, **options, warm_up=warm_up, account=account))
        return {"machine": machine_info(threads), **workload_summary(workload, Shape.of(model), reports, rates)}


@dataclass(frozen=True)
class Race:
    """What both sides train for.

    Attributes:
        config: the config, by its name in configs/.
        every: steps between two evaluations.
        target: the held-out accuracy at which a side ends; None: what the peer reaches in its last step.
        steps: at most; 0: as many as the config says.
    """

    config: str = "quickstart"
    every: int = 2
    target: float | None = 0.85
    steps: int = 0


def time_to_target(race: Race, seeds: list[int], threads: int) -> dict[str, Any]:
    """Train with both sides, seed by seed, until a held-out accuracy is reached."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for seed in seeds:
        target = race.target
        for side in SIDES if race.target is not None else reversed(SIDES):
            measured = _trained(side, race, seed, _UNREACHABLE if target is None else target, threads)
            if target is None:
                target = measured["evaluations"][-1]["accuracy"]
                measured |= up_to_target(measured["evaluations"], target)
            runs[side].append(measured)
    return {"machine": machine_info(threads), **asdict(race), **learning_summary(runs)}


def up_to_target(evaluations: list[dict[str, float]], target: float) -> dict[str, Any]:
    """What a run that went on counts for: up to its first evaluation at the target; for how long it took as a whole, nothing."""
    first = next(k for k, evaluation in enumerate(evaluations) if evaluation["accuracy"] >= target)
    seconds = {"training_seconds": evaluations[first]["training_seconds"], "process_seconds": None}
    return {
        "target": target,
        "reached": True,
        "evaluations": evaluations[: first + 1],
        "evaluation_seconds": None,
        **seconds,
    }


def _trained(side: str, race: Race, seed: int, target: float, threads: int) -> dict[str, Any]:
    """One side's training in a process of its own."""
    began = time.perf_counter()
    options: dict[str, Any] = {
        "config": race.config,
        "steps": race.steps,
        "seed": seed,
        "every": race.every,
        "target": target,
    }
    measured = run(f"learn_{side}", threads, **options)
    return measured | {"process_seconds": time.perf_counter() - began}


def run(module: str, threads: int, python: Path | None = None, **options: Any) -> dict[str, Any]:
    """Run a module of `benchmark` in a separate process, by this interpreter or another one; returns what it wrote to its --out
    file."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out.json"
        command = [
            str(python or sys.executable),
            "-m",
            f"benchmark.{module}",
            "--threads",
            str(threads),
            "--out",
            str(out),
        ]
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
