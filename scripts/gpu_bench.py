"""Measure rl_lightning on a GPU, in one command and one JSON file: no network, no model to download, under nine minutes.

    python scripts/gpu_bench.py --out gpu.json
    python scripts/gpu_bench.py --out toy.json --device cpu --toy      # every part at toy size, in about a minute
    python scripts/gpu_bench.py --out gpu.json --only decoding agreement

Parts: `device` (matrix rate, memory bandwidth, what CUDA takes for itself); `checkpoints` (random weights in the exact shapes of
Qwen2.5 0.5B, 1.5B, 3B and 7B, written to disk and from then on loaded as any model is); `steps` (whole GRPO steps of 8 prompts x 8
completions of 512 tokens after 512-token prompts, with torch limited to the memory of a GPU of 4 to 24 GB: do they fit, time by
part, tokens per second, peak by phase next to the plan's); `decoding` (64 rows on 4-bit weights multiplied packed or dequantised,
and on a merged copy, graphs and eager, as a share of what the bandwidth allows); `agreement` (greedy tokens of graphs and of
eager steps);
`peer` (the same steps by TRL with `generate`, where trl is installed); `learning` (configs/quickstart.yaml to its target accuracy).

Each job runs in a separate process, so a CUDA error or a lack of memory ends that job only, and the file says so in words. The file
is rewritten after every job. Jobs for which there is no time are listed in `left_out`. Device and checkpoints always run.

What must hold on a GPU, however fast it is, is in tests/gpu: `python -m pytest -m gpu`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpu_benchmark.jobs import PARTS, Job, all_jobs  # noqa: E402

from rl_lightning.checkpointing.atomic_files import write_atomically  # noqa: E402

_NEEDED = ("device", "checkpoints")

LONGEST = 150
"""Seconds after which a job is ended, because one that hangs must not take the others' time."""


class Worker:
    """A process that has imported all that a job needs and waits for the job, so that imports cost none of the benchmark's time.

    Args:
        job: the job to do.
        directory: where its findings and its stderr go.
        number: the job's number, for file names.
    """

    def __init__(self, job: Job, directory: Path, number: int) -> None:
        self.found, self.log = directory / f"{number}.jsonl", directory / f"{number}.log"
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", job.calls[0], "--out", str(self.found)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )

    def run(self, job: Job, settings: dict[str, Any], seconds: float) -> dict[str, Any]:
        """What the job has found; `error` says in words why it ended early, if it did."""
        began = time.perf_counter()
        error = None
        try:
            self.process.communicate(json.dumps({"function": job.calls[1], "settings": settings}), timeout=seconds)
        except subprocess.TimeoutExpired:
            error = f"stopped after {seconds:.0f} s"
        self.close()
        found: dict[str, Any] = {}
        if self.found.exists():
            for line in self.found.read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError):  # a line truncated by the end of the process
                    found.update(json.loads(line))
        if error is None and self.process.returncode < 0:
            error = f"ended by {signal.Signals(-self.process.returncode).name}"
        if error is None and self.process.returncode and "error" not in found:
            error = f"ended with exit status {self.process.returncode}"
        if error is not None:
            found["error"] = error
        if "error" in found:
            found["log"] = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        return found | {"seconds": round(time.perf_counter() - began, 2)}

    def close(self) -> None:
        """End the process and those that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def worker_main(module: str, out: Path) -> int:
    """What a worker's process does: import, wait for the job, do it."""
    part = importlib.import_module(f"gpu_benchmark.{module}")
    line = sys.stdin.readline()
    if not line:
        return 1
    with out.open("a", encoding="utf-8") as file:

        def report(**found: Any) -> None:
            file.write(json.dumps(found) + "\n")
            file.flush()

        job = json.loads(line)
        try:
            getattr(part, job["function"])(job["settings"], report)
        except Exception as error:  # whatever it is, it is what this benchmark wants to know
            traceback.print_exc()
            text = " ".join(str(error).split())[:500]
            report(error=f"{type(error).__name__}: {text}")
            return 1
    return 0


def run(jobs: list[Job], out: Path, seconds: float, directory: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Do the jobs one after another; the file is written after each."""
    began = time.perf_counter()
    parts: dict[str, Any] = {}
    results = about | {"parts": parts, "left_out": {}, "summary": {}}
    waiting: dict[int, Worker] = {}
    try:
        for number, job in enumerate(jobs):
            left = seconds - (time.perf_counter() - began)
            name = f"{job.part} {job.name}".strip()
            if left < max(job.least, 1):
                results["left_out"][name] = f"{left:.0f} s were left, and it needs about {max(job.least, 1):.0f}"
            else:
                worker = waiting.pop(number, None) or Worker(job, directory, number)
                if number + 1 < len(jobs) and number:  # the first one counts what is on the GPU while it is alone
                    waiting[number + 1] = Worker(jobs[number + 1], directory, number + 1)
                found = worker.run(job, job.settings | _measured(parts), min(left, LONGEST))
                _put(parts, job, found)
                print(
                    f"{name}: {found.get('error') or found.get('skipped') or 'done'}, {found['seconds']} s", flush=True
                )
            results["summary"], results["seconds"] = summary(parts), round(time.perf_counter() - began, 1)
            _write(out, results)
    finally:
        for worker in waiting.values():
            worker.close()
    return results


def _measured(parts: dict[str, Any]) -> dict[str, Any]:
    device = parts.get("device", {})
    return {"context_bytes": device.get("context_bytes", 0), "bandwidth": device.get("bandwidth_bytes_per_second")}


def _put(parts: dict[str, Any], job: Job, found: dict[str, Any]) -> None:
    if job.name:
        parts.setdefault(job.part, {})[job.name] = found
    else:
        parts[job.part] = found


def _write(out: Path, results: dict[str, Any]) -> None:
    write_atomically(out, json.dumps(results, indent=1) + "\n")  # a metric may be NaN, which `write_json` refuses


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """The results that one looks for first, as far as they exist."""
    steps = parts.get("steps", {})
    fits = {name: found.get("fits", False) for name, found in steps.items()}
    roofline = {
        f"{shape}, {weights}": found["graphs"]["share_of_roofline"]
        for shape, kinds in parts.get("decoding", {}).items()
        for weights, found in kinds.items()
        if isinstance(found, dict)
    }
    sides = [parts.get("peer", {}).get(side, {}).get("steps") for side in ("ours", "trl")]
    times = sides[1][-1]["seconds"] / sides[0][-1]["seconds"] if all(sides) else None
    learning = parts.get("learning", {})
    return {
        "fits": fits,
        "predicted_by_measured": {
            name: _predicted_by_measured(found) for name, found in steps.items() if "peaks" in found
        },
        "share_of_roofline": roofline,
        "times_as_fast_as_trl": times and round(times, 2),
        "seconds_to_target": learning.get("seconds_to_target"),
    }


def _predicted_by_measured(found: dict[str, Any]) -> dict[str, float]:
    """The plan's tensor memory divided by the measured one, by phase; on a GPU only, where torch counts them."""
    measured = {phase: peak["allocated"] for phase, peak in found["peaks"].items() if peak["allocated"]}
    return {phase: round(found["predicted"]["tensors"][phase] / size, 3) for phase, size in measured.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file; an existing one is not touched")
    parser.add_argument(
        "--seconds", type=float, default=520, help="time after which no job begins, and a running one is ended"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="every part at toy size")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=" ".join(PARTS))
    parser.add_argument(
        "--workdir", type=Path, help="where checkpoints go while it runs: 26 GB (default: a temporary directory)"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker_main(args.worker, args.out)
    if args.out.exists():
        parser.error(f"--out: {args.out} exists; name another file")
    if args.device == "cpu" and not args.toy:
        parser.error("--device cpu: only with --toy")
    directory = Path(tempfile.mkdtemp(prefix="gpu_bench_", dir=args.workdir))
    about = {"command": " ".join(sys.argv), "device": args.device, "toy": args.toy, "limit_seconds": args.seconds}
    jobs = [job for job in all_jobs(args.device, args.toy, directory) if job.part in {*args.only, *_NEEDED}]
    try:
        results = run(jobs, args.out, args.seconds, directory, about)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(results["summary"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
