"""Kill a run at random moments, resume it, and compare it with an undisturbed run, to the last bit.

    python scripts/kill_and_resume.py --kills 20 --out outputs/kill_and_resume

Each kill is a SIGKILL that the run's own process sends itself at a random time within a phase (sampling, scoring, the update, the
evaluation, writing a checkpoint) of a random step. Then `--ckpt_path last` resumes the run, which is killed again half of the time.
The adapter or model, every rollout, every evaluation and every metric except times and memory are compared. Prints a table.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
SMALL = [
    "--trainer.max_steps=8",
    "--trainer.enable_progress_bar=false",
    "--model.sampling.num_generations=4",
    "--model.sampling.max_new_tokens=24",
    "--data.prompts_per_step=4",
    "--data.eval_num_samples=4",
    "--fixed_eval.fixed_eval_steps=3",
    "--checkpoint.save_steps=2",
]
VARIANTS = {
    "plain": [],
    "one update a rollout": ["--model.objective.num_iterations=1"],
    "with KL": ["--model.objective.beta=0.02"],
    "all weights": ["--model.policy.lora_r=0", "--model.policy.quantization=none", "--model.objective.beta=0.02"],
    "no data workers": ["--data.num_workers=0"],
    "dynamic sampling": ["--model.sampling.max_resample=3", "--model.reward.init_args.format=0"],
    "curriculum": [
        "--data.curriculum={window: 1, low: 0.05, high: 0.1}",
        "--data.datasets={spell_backward: {levels: [{min_word_len: 4, max_word_len: 4}, {min_word_len: 6, max_word_len: 6}]}}",
    ],
}
PHASES = ("sample", "score", "update", "evaluate", "checkpoint")


def child(phase: str, call: int, delay: float, argv: list[str]) -> int:
    """Run the command line and kill this process `delay` seconds into the `call`-th time that the phase is entered."""
    from rl_lightning.callbacks import FixedEval, adapter_checkpoint
    from rl_lightning.cli.main import main
    from rl_lightning.module import GRPOModule

    methods: dict[str, tuple[Any, str]] = {
        "sample": (GRPOModule, "sample_and_score"),
        "score": (GRPOModule, "score"),
        "update": (GRPOModule, "accumulate_gradients"),
        "evaluate": (FixedEval, "_evaluate"),
        "checkpoint": (adapter_checkpoint, "write_checkpoint"),
    }
    owner, name = methods[phase]
    method, calls = getattr(owner, name), 0

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return method(*args, **kwargs)

    setattr(owner, name, watched)
    return main(argv)


def fit(directory: Path, settings: list[str], kill: tuple[str, int, float] | None = None) -> int:
    """Run `fit` in a separate process, resuming an existing run; the exit status."""
    command = [
        "fit",
        "--config",
        str(CONFIG),
        f"--trainer.default_root_dir={directory}",
        "--ckpt_path=last",
        *SMALL,
        *settings,
    ]
    if not (directory / "config.yaml").exists():
        command.remove("--ckpt_path=last")
    if kill is None:
        whole = [sys.executable, "-m", "rl_lightning", *command]
    else:
        whole = [sys.executable, __file__, "--child", json.dumps(kill), *command]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, -signal.SIGKILL):
        print(done.stdout[-2000:], done.stderr[-3000:], sep="\n")
    return done.returncode


def _content(file: Path) -> bytes:
    """A file's bytes, except the time that an evaluation took."""
    if file.parent.name != "eval_results":
        return file.read_bytes()
    found = json.loads(file.read_text(encoding="utf-8"))
    return json.dumps({k: v for k, v in found.items() if k not in ("seconds", "share_of_run")}).encode()


def differences(ours: Path, theirs: Path) -> list[str]:
    """Relative names of the files that differ between two finished runs."""
    contents = {}
    for run in (ours, theirs):
        last = max(run.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
        files = [
            *run.glob("rollouts/*"),
            *run.glob("eval_results/*"),
            *run.glob("warnings.jsonl"),
            *last.glob("*.safetensors"),
        ]
        contents[run] = {str(f.relative_to(run)): _content(f) for f in files}
        with (run / "metrics.csv").open(newline="") as file:
            rows = [
                {k: v for k, v in row.items() if v and not k.startswith(("time/", "memory/"))}
                for row in csv.DictReader(file)
            ]
        contents[run]["metrics.csv"] = repr([sorted(row.items()) for row in rows]).encode()
    a, b = contents[ours], contents[theirs]
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new directory for the runs")
    parser.add_argument(
        "--kills", type=int, default=20, help="number of runs that are killed, spread over phases and variants"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random kill times")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    rng = random.Random(args.seed)
    references: dict[str, Path] = {}
    different = killed = 0
    for number in range(args.kills):
        phase, variant = PHASES[number % len(PHASES)], list(VARIANTS)[number % len(VARIANTS)]  # 35 are all pairs
        if variant not in references:
            references[variant] = args.out / f"whole-{len(references)}"
            assert fit(references[variant], VARIANTS[variant]) == 0
        run, kills = args.out / f"killed-{number}", []
        while True:
            most = {"evaluate": 3, "checkpoint": 3, "update": 7}.get(phase, 4)
            kill = (phase, rng.randint(1, most), rng.uniform(0, 0.15))
            status = fit(run, VARIANTS[variant], kill)
            kills.append(f"{kill[1]}. {phase} +{kill[2]:.3f} s: {'killed' if status else 'not reached'}")
            killed += status == -signal.SIGKILL
            if status != -signal.SIGKILL or rng.random() < 0.5:
                break
        assert fit(run, VARIANTS[variant]) == 0 if status else True
        wrong = differences(run, references[variant])
        different += bool(wrong)
        print(f"{variant:22} {'; '.join(kills):60} {'the same' if not wrong else f'DIFFERENT: {wrong}'}", flush=True)
    print(f"{args.kills} runs, {killed} kills: {different} ended otherwise than the run that was left alone")
    return int(different > 0)


if __name__ == "__main__":
    if "--child" in sys.argv[1:2]:
        phase, call, delay = json.loads(sys.argv[2])
        sys.exit(child(phase, call, delay, sys.argv[3:]))
    sys.exit(main())
