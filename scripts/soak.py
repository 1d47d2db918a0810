"""Train for a long time with everything on, once undisturbed and once killed again and again, and see what grows and what differs.

    python scripts/soak.py --steps 2000 --kills 50 --out outputs/soak --json docs/results/soak.json

Everything: curriculum, resampling, tables of rollouts, metrics.csv, TensorBoard and wandb (offline) at once, evaluations,
checkpoints, and `report --watch` beside it, whose page is asked for every half minute. Of the undisturbed run memory, open files,
threads, processes and the time of a step are measured; each slope has a 95% interval. The other one gets SIGKILL at random moments,
a few of them while it starts, and is resumed by `--ckpt_path last`; at its end it is compared with the first, to the last bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
from kill_and_resume import CONFIG, differences
from machine import describe_machine, machine_info
from soaking.beside import watching
from soaking.processes import MEASURED, Watched, last_step
from soaking.slopes import BLOCKS, Slope, slope

from rl_lightning.checkpointing.atomic_files import write_json
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


def undisturbed(run: Path, steps: int, threads: int) -> dict[str, Any]:
    """Train to the end, and measure."""
    process, began = start(run, steps, threads), time.monotonic()
    while last_step(run) < 0 and process.poll() is None:
        time.sleep(0.2)
    if process.poll() is not None:
        _require_success(process, run)
    watched = Watched(psutil.Process(process.pid))
    with watching(run) as page:
        beside = Watched(page.process)
        while process.poll() is None:
            if (step := last_step(run)) < steps:  # after the last step everything is being closed
                watched.sample(step)
                beside.sample(step)
            time.sleep(0.5)
    _require_success(process, run)
    return {
        "seconds": time.monotonic() - began,
        "slopes": {**slopes_of(watched, beside), **slopes_of_steps(run)},
        "pages": page.pages,
        "pages_refused": page.refused,
        "processes_left": [each.name() for each in watched.left(20)],
    }


def slopes_of(watched: Watched, beside: Watched) -> dict[str, Slope]:
    """How what was measured of the run's and the page's processes changed over the steps."""
    kept = watched.samples[int(WARM_UP * len(watched.samples)) :]
    steps = [each["step"] for each in kept]
    found = {name: slope(steps, [each[name] for each in kept]) for name in MEASURED}
    of_page = beside.samples[int(WARM_UP * len(beside.samples)) :]
    steps = [each["step"] for each in of_page]
    return found | {
        f"watch_{name}": slope(steps, [each[name] for each in of_page]) for name in ("main_mb", "files", "threads")
    }


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


def killed(run: Path, steps: int, kills: int, threads: int, rng: random.Random) -> dict[str, Any]:
    """Train to the end in spite of kills at random moments."""
    moments: list[dict[str, Any]] = []
    left: list[str] = []
    for at in sorted(rng.randrange(steps - 10) for _ in range(kills)):
        while True:  # a kill that came while the process started did not bring the run nearer to its step
            starting = rng.random() < 0.1
            process, began = start(run, steps, threads), time.monotonic()
            watched = Watched(psutil.Process(process.pid))
            page = watching(run) if last_step(run) >= 0 and rng.random() < 0.2 else nullcontext()
            with page:
                seconds = rng.uniform(0, SECONDS_STARTING) if starting else rng.uniform(0, 0.5)
                while process.poll() is None and not starting and last_step(run) < at:
                    watched.look()
                    time.sleep(0.05)
                time.sleep(seconds)
                watched.look()
                process.kill()
                process.wait()
            if process.returncode != -signal.SIGKILL:
                _require_success(process, run)
            moments.append({"step": last_step(run), "starting": starting, "after_s": time.monotonic() - began})
            left += [each.name() for each in watched.left(20)]
            print(f"kill {len(moments)}: {moments[-1]}", file=sys.stderr, flush=True)
            if not starting or len(moments) >= kills:
                break
        if len(moments) >= kills:
            break
    process = start(run, steps, threads)
    process.wait()
    _require_success(process, run)
    return {"kills": moments, "processes_left": left}


def _require_success(process: subprocess.Popen[bytes], run: Path) -> None:
    if process.returncode != 0:
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
    rows += ["", f"{len(kills)} kills, {starting} of them while the run started: {end}."]
    return "\n".join([*rows, "", describe_machine(found["machine"])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new directory for the two runs")
    parser.add_argument("--json", type=Path, help="where the results go; nowhere by default")
    parser.add_argument("--steps", type=int, default=2000, help=f"at least {3 * BLOCKS}")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="with more than one, sums may differ in the last bits")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    whole, other = args.out.absolute() / "whole", args.out.absolute() / "killed"
    found = {
        "machine": machine_info(args.threads),
        "steps": args.steps,
        "undisturbed": undisturbed(whole, args.steps, args.threads),
        "killed": killed(other, args.steps, args.kills, args.threads, random.Random(args.seed)),
        "different_files": differences(other, whole),
    }
    slopes = found["undisturbed"]["slopes"]
    found["undisturbed"]["slopes"] = {name: each._asdict() for name, each in slopes.items()}
    if args.json:
        write_json(args.json, found)
    print(table(found))
    return int(bool(found["different_files"]))


if __name__ == "__main__":
    sys.exit(main())
