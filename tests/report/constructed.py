"""A run directory as a run leaves it, made up: a policy that learns to work before it answers, at any length."""

from __future__ import annotations

import csv
import json
import math
import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from rl_lightning.report.watch import PageServer

TASKS = ("chain_sum", "leg_counting", "spell_backward")
HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
CHUNK = 20
"""Steps in a file of rollouts."""
CONFIG = """\
seed_everything: {seed}
model:
  policy: {{model_name_or_path: tiny, lora: {{r: 16}}}}
  sampling: {{num_generations: {group}, max_new_tokens: 64, temperature: 1.0}}
  learning_rate: 0.001
data:
  prompts_per_step: {prompts}
  datasets: {{chain_sum: {{}}, leg_counting: {{}}, spell_backward: {{}}}}
"""


def write_run(
    path: Path,
    steps: int = 40,
    prompts: int = 4,
    group: int = 8,
    evaluations: Iterable[int] = (0, 20, 40),
    seed: int = 0,
    ended: bool = True,
    words: int = 12,
    hostile: str = "",
) -> Path:
    """Write everything that the page reads.

    Args:
        path: the directory to make.
        steps: of training; at most `CHUNK`, or a multiple of it.
        prompts: a step.
        group: completions per prompt.
        evaluations: their steps.
        seed: of the made-up numbers.
        ended: whether the run has ended.
        words: of a think section at its end.
        hostile: a text that one completion of the last step, one of the last evaluation and a warning contain.
    """
    draw = random.Random(seed)
    (path / "rollouts").mkdir(parents=True)
    (path / "eval_results").mkdir()
    (path / "config.yaml").write_text(CONFIG.format(seed=seed, group=group, prompts=prompts))
    _write_metrics(path / "metrics.csv", steps, draw)
    first: dict[Any, float] = {}
    for step in evaluations:
        report = _evaluation(step, steps, draw, first, hostile if step == max(evaluations) else "")
        (path / "eval_results" / f"eval_step_{step}.json").write_text(json.dumps(report))
    _write_rollouts(path / "rollouts", steps, prompts, group, words, draw, hostile)
    text = f"62% of the groups are all wrong: too hard {hostile}; see data.datasets"
    (path / "warnings.jsonl").write_text(json.dumps({"step": 10, "name": "all_wrong", "text": text}) + "\n")
    if ended:
        (path / "train_results.json").write_text(json.dumps({"step": steps, "seconds": 126.0}))
    return path


def widen(run: Path) -> None:
    """Give the run's last evaluation every column of the page's tables, with a better evaluation before it."""
    results = run / "eval_results"
    last = json.loads((results / "eval_step_40.json").read_text())
    gain = {"mean": -0.1, "low": -0.25, "high": 0.05, "p": 0.012}
    for figures in (last["overall"], *last["tasks"].values()):
        figures |= {"constant": 0.125, "constant_answer": "quite a long answer, isn't it", "gain_best": gain}
        figures |= {"pass_at_k": {"1": 0.9, "8": 0.97}, "majority_at_k": 0.93}
    last["levels"] = {task: {"num_terms 3": {**figures, "gain": gain}} for task, figures in last["tasks"].items()}
    last |= {"share_of_run": 0.04, "samples": {"samples": 8, "temperature": 1.0}}
    (results / "eval_step_40.json").write_text(json.dumps(last))
    best = json.loads((results / "eval_step_20.json").read_text())
    best["overall"]["accuracy"] = 0.999
    (results / "eval_step_20.json").write_text(json.dumps(best))


def make_alike(run: Path) -> None:
    """In all groups of the last two steps all completions become right, except in the second group of the last step but one."""
    (file,) = (run / "rollouts").glob("*-000040.parquet")
    rows = pyarrow.parquet.read_table(file).to_pylist()
    for row in (row for row in rows if row["step"] >= 39):
        row |= {"exact": 1.0, "reward": 1.1, "advantage": 0.0}
    wrong = [row for row in rows if (row["step"], row["group"]) == (39, 1)]
    for place, row in enumerate(wrong):
        right = place >= 5
        words = "6 + 1" if place == 7 else "3 + 4" if right else f"{place} is more"
        answer = "7" if right else "8"
        row |= {"completion": f"<think>{words}</think><answer>{answer}</answer>", "answer": answer}
        row |= {"exact": float(right), "reward": 1.1 if right else 0.1, "advantage": 1.0 if right else -0.6}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


@contextmanager
def serving(run: Path) -> Iterator[PageServer]:
    """A server of the run's page, which ends with the block, however that ends."""
    with PageServer([run], port=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def skill(step: int, steps: int) -> float:
    """The share it answers rightly: an S from 0.15 to 0.95."""
    return 0.15 + 0.8 / (1 + math.exp(-10 * (step / steps - 0.4)))


def _write_metrics(path: Path, steps: int, draw: random.Random) -> None:
    with path.open("w", newline="") as file:
        names = ["step", *_metrics(1, steps, draw)]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for step in range(1, steps + 1):
            writer.writerow({"step": step, **_metrics(step, steps, draw)})


def _metrics(step: int, steps: int, draw: random.Random) -> dict[str, float]:
    good = min(1.0, max(0.0, skill(step, steps) + draw.gauss(0, 0.05)))
    right, wrong = good**4, (1 - good) ** 4
    return {
        "reward/mean": good + 0.1,
        "reward/exact": good,
        "reward/well_formed": min(1.0, 0.8 + good / 4),
        "completion/tokens": 12 + 28 * good,
        "completion/tokens_max": 44 + draw.randrange(20),
        "completion/truncated": 0.02 * draw.random(),
        "groups/with_variance": 1 - right - wrong,
        "groups/zero_variance_right": right,
        "groups/zero_variance_wrong": wrong,
        "policy/entropy": 0.45 - 0.3 * good,
        "policy/kl": 0.08 * good,
        "policy/logprob_mismatch": 0.002 + 0.0005 * draw.random(),
        "policy/grad_norm": float("nan") if step == 7 else 0.3 + 0.2 * draw.random(),
        "policy/learning_rate": 1e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps)),
        "time/sample": 0.8 + good + 0.1 * draw.random(),
        "time/score": 0.05,
        "time/train": 0.9 + 0.1 * draw.random(),
        "time/sampled_tokens_per_second": 9000 - 800 * draw.random(),
        "time/trained_tokens_per_second": 11000 - 800 * draw.random(),
        "memory/peak_gb": 5.1 + 0.2 * good,
        "policy/loss": draw.gauss(0, 0.01),
        "groups/reward_std": 0.4 * (1 - right - wrong),
    }


def _evaluation(step: int, steps: int, draw: random.Random, first: dict[Any, float], hostile: str) -> dict[str, Any]:
    good = skill(step, steps)
    rows = []
    for task in TASKS:
        for index in range(50):
            luck = first.setdefault((task, index), draw.random())
            right = luck * 0.9 + 0.1 * draw.random() < good
            text = _completion(task, index, right, good, 12, draw)
            row = {
                "task": task,
                "index": index,
                "exact": float(right),
                "partial": float(right),
                "tokens": len(text) // 3,
            }
            rows.append({**row, "truncated": False, "completion": text})
    if hostile:
        rows[0]["completion"] = hostile
    tasks = {task: _figures([row for row in rows if row["task"] == task]) for task in TASKS}
    return {"step": step, "suite": "0f1e2d3c4b5a6978", "overall": _figures(rows), "tasks": tasks, "rows": rows}


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    n = len(rows)
    accuracy = sum(row["exact"] for row in rows) / n
    tokens = sum(row["tokens"] for row in rows) / n
    error = math.sqrt(accuracy * (1 - accuracy) / n)
    ends = {"low": max(0.0, accuracy - 1.96 * error), "high": min(1.0, accuracy + 1.96 * error)}
    return {"n": n, "accuracy": accuracy, **ends, "standard_error": error, "mean_tokens": tokens, "truncated": 0.0}


def _write_rollouts(
    path: Path, steps: int, prompts: int, group: int, words: int, draw: random.Random, hostile: str
) -> None:
    """A file for each `CHUNK` of steps; in a longer run every file has the completions of the first, at its own steps."""
    one = min(CHUNK, steps)
    rows = [row for step in range(1, one + 1) for row in _rollouts(step, one, prompts, group, words, draw)]
    if hostile:
        for row in rows[-group:]:
            row["prompt"] = hostile
        rows[-1]["completion"] = f"<think>{hostile}</think><answer>{hostile}</answer>"
    table = pyarrow.Table.from_pylist(rows)
    for begin in range(0, steps, one):
        for name, shift in (("step", one), ("index", one * prompts)) if begin else ():
            column = pyarrow.compute.add(table[name], shift)
            table = table.set_column(table.column_names.index(name), name, column)
        file = path / f"rollouts_{begin + 1:06d}-{begin + one:06d}.parquet"
        pyarrow.parquet.write_table(table, file)


def _rollouts(step: int, steps: int, prompts: int, group: int, words: int, draw: random.Random) -> list[dict[str, Any]]:
    good, rows = skill(step, steps), []
    for place in range(prompts):
        index = (step - 1) * prompts + place
        task, ease = TASKS[index % len(TASKS)], draw.gauss(0, 0.25)
        right = [draw.random() < good + ease for _ in range(group)]
        rewards = [1.1 if r else 0.1 for r in right]
        mean = sum(rewards) / group
        for r, reward in zip(right, rewards, strict=True):
            text = _completion(task, index, r, good, words, draw)
            rows.append(
                {
                    "step": step,
                    "task": task,
                    "index": index,
                    "group": place,
                    "prompt": f"Question {index} of {task}: what is {index} plus {index + 1}?",
                    "completion": text,
                    "answer": str(2 * index + 1) if r else str(draw.randrange(99)),
                    "expected": str(2 * index + 1),
                    "exact": float(r),
                    "partial": float(r),
                    "format": True,
                    "failure": None,
                    "reward": reward,
                    "advantage": reward - mean,
                    "tokens": len(text) // 3,
                    "mean_logprob": -0.3,
                    "entropy": 0.2 + 0.1 * draw.random(),
                    "finish": "stop" if draw.random() < 0.98 else "length",
                    "logprob_mismatch": 0.002,
                }
            )
    return rows


def _completion(task: str, index: int, right: bool, good: float, words: int, draw: random.Random) -> str:
    answer = 2 * index + 1 if right else draw.randrange(99)
    work = " ".join(f"{draw.randrange(99)}+{draw.randrange(99)};" for _ in range(round(words * good)))
    return f"<think>{work}</think><answer>{answer}</answer>"
