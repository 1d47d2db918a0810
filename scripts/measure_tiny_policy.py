"""How good is a policy on the quickstart's tasks before any RL, and how good is each of its two ways of working?

    python scripts/measure_tiny_policy.py --model tiny

A completion is "worked" where its think section is not empty. Problems are the quickstart's evaluation problems; sampling is at
temperature 1. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from rl_lightning.data import collate
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import Sampling, sample_groups
from rl_lightning.scoring import Scorer
from rl_lightning.tasks.prompts import PromptTemplate
from rl_lightning.tasks.stream import Prompt, TaskMixture, TaskSpec, eval_problems


def share(values: list[float]) -> float | None:
    return round(fmean(values), 3) if values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--quantization", choices=["nf4", "none"], default="nf4")
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--problems", type=int, default=50, help="a task")
    parser.add_argument("--samples", type=int, default=8, help="a problem")
    args = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    mixture = TaskMixture({name: TaskSpec(**spec) for name, spec in config["data"]["datasets"].items()})
    policy = Policy(PolicyConfig(args.model, args.quantization), torch.device("cpu"))
    template, scorer = PromptTemplate(policy.tokenizer, config["data"]["system_prompt"]), Scorer(mixture)
    problems = eval_problems(mixture, 0, args.problems)
    batch = collate([Prompt(p, template.token_ids(p.question), {}) for p in problems])
    sampling = Sampling(args.samples, config["model"]["sampling"]["max_new_tokens"])
    report: dict[str, dict[str, Any]] = {}
    with policy.sampling() as model:
        for kind, generator in (("greedy", None), ("sampled", torch.Generator().manual_seed(0))):
            rollout = sample_groups(
                model, batch, sampling, policy.end_token_ids, policy.decode_text, generator, policy.pad_token_id
            )
            asked = [problem for problem in problems for _ in range(rollout.group_size)]
            scores = scorer(asked, rollout.texts)
            for task in [*mixture.tasks, "all"]:
                rows = [
                    (score.exact, not text.startswith("<think></think>"), length)
                    for p, score, text, length in zip(
                        asked, scores, rollout.texts, rollout.lengths.tolist(), strict=True
                    )
                    if task in (p.task, "all")
                ]
                report.setdefault(task, {})[kind] = {
                    "accuracy": share([exact for exact, _, _ in rows]),
                    "worked": share([float(worked) for _, worked, _ in rows]),
                    "accuracy_worked": share([exact for exact, worked, _ in rows if worked]),
                    "accuracy_direct": share([exact for exact, worked, _ in rows if not worked]),
                    "tokens": share([float(length) for _, _, length in rows]),
                    "truncated": share([float(length >= sampling.max_new_tokens) for _, _, length in rows]),
                }
    for task, figures in report.items():
        print(f"{task:18}", json.dumps(figures))


if __name__ == "__main__":
    main()
