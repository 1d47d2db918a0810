"""Train for a long time with everything on, once undisturbed and once killed again and again, and see what grows and what differs.

    python scripts/soak.py --steps 2000 --killed-steps 1000 --kills 50 --out outputs/soak --json docs/results/soak.json

Everything: curriculum, resampling, tables of rollouts, metrics.csv, TensorBoard and wandb (offline) at once, evaluations,
checkpoints, and `report --watch` beside it, whose page is asked for every half minute. Of the undisturbed run memory, open files,
threads, processes, and the time and processor time of a step are measured; each slope has a 95% interval. The other one gets
SIGKILL at random moments, a few of them while it starts, and is resumed by `--ckpt_path last`; at `--killed-steps` it is compared
with the first, to the last bit. What each has found is kept in `OUT/whole.json` and `OUT/killed.json`, and every sample in
`OUT/*_samples.jsonl`, so the two can be run by two commands, or again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from kill_and_resume import CONFIG, differences
from machine import describe_machine, machine_info
from soaking.beside import watching
from soaking.processes import MEASURED, Watched, last_step
from soaking.slopes import BLOCKS, Slope, slope

from rl_lightning.callbacks.diagnostics import forget_warnings_after
from rl_lightning.checkpointing.atomic_files import write_json
from rl_lightning.loggers.metrics_csv import MetricsCSV
from rl_lightning.loggers.rollout_files import drop_steps_after
from rl_lightning.report.run_files import series

SETTINGS = [
    "--trainer.enable_progress_bar=false",
    "--model.sampling.num_generations=4",
    "--model.sampling.max_new_tokens=48",
    "--model.sampling.max_resample=2",
    "--model.objective.num_iterations=1",
    "--model.learning_rate=1e-4",
    "--model.lr_schedule=constant",
    "--data.prompts_per_step=4",
    "--data.eval_num_samples=10",
    "--data.curriculum={window: 8}",
    "--data.datasets={leg_counting: {config: {min_animals: 2, max_animals: 3, min_instances: 2, max_instances: 9}}, "
    "chain_sum: {config: {min_terms: 2, max_digits: 2}, levels: [{max_terms: 2}, {max_terms: 3}, {max_terms: 4}]}, "
    "spell_backward: {levels: [{min_word_len: 4, max_word_len: 4}, {min_word_len: 7, max_word_len: 7}]}}",
    "--fixed_eval.fixed_eval_steps=50",
    "--checkpoint.save_steps=10",
    "--rollout_table.table_steps=20",
]
LOGGERS = """--trainer.logger=[
{{class_path: rl_lightning.loggers.metrics_csv.MetricsCSV, init_args: {{save_dir: {0}}}}},
{{class_path: TensorBoardLogger, init_args: {{save_dir: {0}/tensorboard}}}},
{{class_path: WandbLogger, init_args: {{save_dir: {0}, project: soak, offline: true}}}}]"""

WARM_UP = 0.1
"""Share of the samples that come before the slopes: caches fill and the allocator takes its arenas."""

SECONDS_STARTING = 10.0
"""One kill in ten comes within so many seconds of the process's start, whatever it has done by then."""


def start(run: Path, steps: int, threads: int) -> subprocess.Popen[bytes]:
    """Start `fit`, or resume it where the run has begun."""
    command = [sys.executable, "-m", "rl_lightning", "fit", "--config", str(CONFIG), *SETTINGS]
    command += [f"--trainer.default_root_dir={run}", f"--trainer.max_steps={steps}", LOGGERS.format(run)]
    command += ["--ckpt_path=last"] if (run / "config.yaml").exists() else []
    with run.with_suffix(".log").open("ab") as log:
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def undisturbed(run: Path, steps: int, until: int, threads: int) -> dict[str, Any]:
    """Train to the end, and measure; keep the state at step `until` for the comparison."""
    process, began = start(run, steps, threads), time.monotonic()
    while last_step(run) < 0 and process.poll() is None:
        time.sleep(0.2)
    if process.poll() is not None:
        _require_success(process, run)
    watched = Watched(psutil.Process(process.pid), run.with_name("whole_samples.jsonl"))
    with watching(run) as page:
        beside = Watched(page.process, run.with_name("page_samples.jsonl"))
        while process.poll() is None:
            if (step := last_step(run)) < steps:  # after the last step everything is being closed
                watched.sample(step)
                beside.sample(step)
            keep_checkpoint(run, until)
            time.sleep(0.5)
    _require_success(process, run)
    keep_checkpoint(run, until)
    return {
        "seconds": time.monotonic() - began,
        "slopes": {
            name: each._asdict() for name, each in {**slopes_of(watched, beside), **slopes_of_steps(run)}.items()
        },
        "pages": page.pages,
        "pages_refused": page.refused,
        "processes_left": [each.name() for each in watched.left(20)],
    }


def slopes_of(watched: Watched, beside: Watched) -> dict[str, Slope]:
    """How what was measured of the run's and the page's processes changed over the steps."""
    kept = watched.samples[int(WARM_UP * len(watched.samples)) :]
    steps = [each["step"] for each in kept]
    found = {name: slope(steps, [each[name] for each in kept]) for name in MEASURED}
    changed = kept[:1] + [new for old, new in pairwise(kept) if new["step"] > old["step"]]
    found["step_processor_ms"] = slope(*_per_step(changed))
    of_page = beside.samples[int(WARM_UP * len(beside.samples)) :]
    steps = [each["step"] for each in of_page]
    return found | {
        f"watch_{name}": slope(steps, [each[name] for each in of_page]) for name in ("main_mb", "files", "threads")
    }


def _per_step(samples: list[dict[str, float]]) -> tuple[list[float], list[float]]:
    """Step, and the processor milliseconds that a step took before it; unlike the time, they hardly know of other programs."""
    parts = [
        (new["step"], new["step"] - old["step"], new["processor_s"] - old["processor_s"])
        for old, new in pairwise(samples)
    ]
    return [step for step, _, _ in parts], [1000 * seconds / steps for _, steps, seconds in parts]


def slopes_of_steps(run: Path) -> dict[str, Slope]:
    """How the time of a step, and of a sampled token, changed over the steps."""
    parts = [series(run, f"time/{part}") for part in ("sample", "score", "train")]
    first = int(WARM_UP * len(parts[0][0]))
    steps, seconds = parts[0][0][first:], [sum(each) for each in zip(*(values for _, values in parts), strict=True)]
    speed = series(run, "time/sampled_tokens_per_second")
    return {
        "step_ms": slope(steps, [1000 * each for each in seconds[first:]]),
        "sampled_token_ms": slope(speed[0][first:], [1000 / each for each in speed[1][first:]]),
    }


def killed(run: Path, steps: int, until: int, kills: int, threads: int, rng: random.Random) -> dict[str, Any]:
    """Train to step `until` in spite of kills at random moments."""
    moments: list[dict[str, Any]] = []
    left: list[str] = []
    waiting = sorted(rng.randrange(until - 10) for _ in range(kills))
    while len(moments) < kills:
        starting = rng.random() < 0.1
        process, began = start(run, steps, threads), time.monotonic()
        watched = Watched(psutil.Process(process.pid))
        with watching(run) if last_step(run) >= 0 and rng.random() < 0.2 else nullcontext():
            while process.poll() is None and not starting and last_step(run) < waiting[0]:
                watched.look()
                time.sleep(0.05)
            time.sleep(rng.uniform(0, SECONDS_STARTING if starting else 0.5))
            watched.look()
            process.kill()
            process.wait()
        _require_success(process, run, -signal.SIGKILL)
        waiting.pop(-1 if starting else 0)
        moments.append({"step": last_step(run), "starting": starting, "after_s": time.monotonic() - began})
        left += [each.name() for each in watched.left(20)]
        print(f"kill {len(moments)}: {moments[-1]}", file=sys.stderr, flush=True)
    process = start(run, steps, threads)
    while process.poll() is None and not (last_step(run) > until and keep_checkpoint(run, until)):
        time.sleep(0.5)
    if process.poll() is not None:
        _require_success(process, run)
    process.kill()
    process.wait()
    keep_checkpoint(run, until)
    return {"kills": moments, "processes_left": left}


def keep_checkpoint(run: Path, step: int) -> bool:
    """Copy a checkpoint before the run removes it; whether it is there."""
    checkpoint, kept = run / f"checkpoint-{step}", _first_part(run, step) / f"checkpoint-{step}"
    if checkpoint.is_dir() and not kept.is_dir():
        shutil.copytree(checkpoint, kept)
    return kept.is_dir()


def first_steps(run: Path, step: int) -> Path:
    """Copy what a run has written up to a step to where its checkpoint was kept."""
    part = _first_part(run, step)
    for name in ("rollouts", "eval_results"):
        shutil.copytree(run / name, part / name)
    for file in (run / "metrics.csv", run / "warnings.jsonl"):
        if file.is_file():
            shutil.copy(file, part)
    MetricsCSV(str(part)).resume_after(step)
    drop_steps_after(part / "rollouts", step)
    forget_warnings_after(part, step)
    for file in part.glob("eval_results/eval_step_*.json"):
        if int(file.stem.rpartition("_")[2]) > step:
            file.unlink()
    return part


def _first_part(run: Path, step: int) -> Path:
    return run.with_name(f"{run.name}-{step}")


def _require_success(process: subprocess.Popen[bytes], run: Path, status: int = 0) -> None:
    if process.returncode != status:
        raise SystemExit(f"{run}: exit status {process.returncode}; its output is in {run.with_suffix('.log')}")


def table(found: dict[str, Any]) -> str:
    """The slopes as a Markdown table, and what became of the kills."""
    rows = ["| | first block | last block | change per 1000 steps | 95% interval |", "|---|---:|---:|---:|---:|"]
    for name, each in found["undisturbed"]["slopes"].items():
        change, low, high, first, last = each.values()
        rows.append(f"| {name} | {first:.4g} | {last:.4g} | {change:+.3g} | {low:+.3g} to {high:+.3g} |")
    kills, wrong = found["killed"]["kills"], found["different_files"]
    starting = sum(each["starting"] for each in kills)
    end = "the same to the last bit" if not wrong else f"DIFFERENT: {', '.join(wrong)}"
    rows += [
        "",
        f"{len(kills)} kills on {found['killed_steps']} steps, {starting} of them while the run started: {end}.",
    ]
    return "\n".join([*rows, "", describe_machine(found["machine"])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the directory for the two runs")
    parser.add_argument("--json", type=Path, help="where the results go; nowhere by default")
    parser.add_argument("--steps", type=int, default=2000, help=f"at least {3 * BLOCKS}")
    parser.add_argument(
        "--killed-steps", type=int, help="of the run that is killed, a multiple of 10; as many by default"
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="with more than one, sums may differ in the last bits")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument("--part", choices=("whole", "killed"), help="only one of the two runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    whole, other = args.out.absolute() / "whole", args.out.absolute() / "killed"
    until = args.killed_steps or args.steps
    parts: dict[Path, Callable[[], dict[str, Any]]] = {
        whole: lambda: undisturbed(whole, args.steps, until, args.threads),
        other: lambda: killed(other, args.steps, until, args.kills, args.threads, random.Random(args.seed)),
    }
    for run, train in parts.items():
        if args.part in (None, run.name) and not run.with_suffix(".json").exists():
            write_json(run.with_suffix(".json"), train())
    if not all(run.with_suffix(".json").exists() for run in parts):
        return 0
    found = {
        "machine": machine_info(args.threads),
        "steps": args.steps,
        "killed_steps": until,
        "undisturbed": json.loads(whole.with_suffix(".json").read_text(encoding="utf-8")),
        "killed": json.loads(other.with_suffix(".json").read_text(encoding="utf-8")),
        "different_files": differences(first_steps(other, until), first_steps(whole, until)),
    }
    if args.json:
        write_json(args.json, found)
    print(table(found))
    return int(bool(found["different_files"]))


if __name__ == "__main__":
    sys.exit(main())
