"""Measure how good a policy is on the quickstart's tasks before any RL, and how good it is with and without thinking.

    python scripts/measure_tiny_policy.py --model tiny

A completion is "worked" (with thinking) if its think section is not empty, otherwise "direct" (without thinking).
Problems are the quickstart's evaluation problems; sampling is at temperature 1. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from rl_lightning.environments.batches import collate
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import Prompt, eval_problems
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.rollout.sampling import draw_uniforms
from rl_lightning.scoring import Scorer
from rl_lightning.types import Problem, Rollout, Score


def share(values: list[float]) -> float | None:
    return round(fmean(values), 3) if values else None


def by_task(
    problems: list[Problem], rollout: Rollout, scores: list[Score], tasks: list[str], limit: int
) -> dict[str, dict[str, float | None]]:
    """By task: overall accuracy, accuracy with and without thinking, the share with thinking, mean tokens, the share truncated.

    Args:
        problems: the problem of each of N completions.
        rollout: N completions.
        scores: N scores.
        tasks: names; "all" is every task together.
        limit: maximum number of tokens per completion.
    """
    found = {}
    for task in tasks:
        rows = [
            (score.exact, not text.startswith("<think></think>"), length)
            for p, score, text, length in zip(problems, scores, rollout.texts, rollout.lengths.tolist(), strict=True)
            if task in (p.task, "all")
        ]
        found[task] = {
            "accuracy": share([exact for exact, _, _ in rows]),
            "worked": share([float(worked) for _, worked, _ in rows]),
            "accuracy_worked": share([exact for exact, worked, _ in rows if worked]),
            "accuracy_direct": share([exact for exact, worked, _ in rows if not worked]),
            "tokens": share([float(length) for _, _, length in rows]),
            "truncated": share([float(length >= limit) for _, _, length in rows]),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--quantization", choices=["nf4", "none"], default="nf4")
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--problems", type=int, default=50, help="number of problems per task")
    parser.add_argument("--samples", type=int, default=8, help="number of samples per problem")
    args = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    mixture = EnvironmentMixture({name: TaskSpec(**spec) for name, spec in config["data"]["datasets"].items()})
    policy = Policy(PolicyConfig(args.model, args.quantization), torch.device("cpu"))
    template, scorer = PromptTemplate(policy.tokenizer, config["data"]["system_prompt"]), Scorer(mixture)
    batch = collate([Prompt(p, template.token_ids(p.question), {}) for p in eval_problems(mixture, 0, args.problems)])
    sampling = Sampling(args.samples, config["model"]["sampling"]["max_new_tokens"])
    generator, tasks, limit = torch.Generator().manual_seed(0), [*mixture.tasks, "all"], sampling.max_new_tokens
    engine = LocalEngine()
    engine.start(policy)
    engine.sync_weights()
    report: dict[str, dict[str, Any]] = {task: {} for task in tasks}
    for kind, draws in (("greedy", None), ("sampled", draw_uniforms(generator, len(batch) * args.samples, limit))):
        rollout = engine.generate(batch, sampling, draws)
        problems = batch.repeat_problems(rollout.group_size)
        for task, values in by_task(problems, rollout, scorer(problems, rollout.texts), tasks, limit).items():
            report[task][kind] = values
    for task, values in report.items():
        print(f"{task:18}", json.dumps(values))


if __name__ == "__main__":
    main()
