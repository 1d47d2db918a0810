"""How fast are group rollouts against `model.generate`, on the same prompts with the same policy, in one run?

    python scripts/bench_rollout.py

Both sample 8 completions of each of 8 quickstart prompts from the tiny policy (4-bit base, LoRA) at temperature 1, ours on the
merged copy that a CPU's rollouts run on; A B A B …, the medians and their ratio are printed. Sampling differs in its random
numbers, so tokens are counted and compared too.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from torch.nn.utils.rnn import pad_sequence

from rl_lightning.data import collate
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import Sampling, sample_groups
from rl_lightning.tasks.prompts import PromptTemplate
from rl_lightning.tasks.stream import PromptStream, TaskMixture, TaskSpec
from rl_lightning.types import PromptBatch


def ours(policy: Policy, batch: PromptBatch, sampling: Sampling, seed: int) -> int:
    """Sampled tokens."""
    generator = torch.Generator().manual_seed(seed)
    with policy.sampling() as model:
        rollout = sample_groups(
            model, batch, sampling, policy.end_token_ids, policy.decode_text, generator, policy.pad_token_id
        )
    return int(rollout.mask.sum())


def generate(policy: Policy, batch: PromptBatch, sampling: Sampling, seed: int) -> int:
    """Sampled tokens, by transformers' own loop."""
    torch.manual_seed(seed)
    prompts = [ids[:length] for ids, length in zip(batch.prompt_ids, batch.prompt_lengths.tolist(), strict=True)]
    ids = pad_sequence(prompts, batch_first=True, padding_side="left")
    mask = pad_sequence([torch.ones_like(prompt) for prompt in prompts], batch_first=True, padding_side="left")
    policy.model.eval()
    with torch.no_grad():
        out = policy.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=sampling.temperature,
            top_k=0,
            num_return_sequences=sampling.num_generations,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=policy.end_token_ids.tolist(),
            pad_token_id=policy.pad_token_id,
        )
    completions = out[:, ids.shape[1] :]
    ended = torch.isin(completions, policy.end_token_ids)
    before_end = ended.cumsum(dim=1) - ended.long() == 0
    return int(before_end.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"), help="whose tasks and lengths")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds, after one that is not")
    args = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    mixture = TaskMixture({name: TaskSpec(**spec) for name, spec in config["data"]["datasets"].items()})
    policy = Policy(PolicyConfig(config["model"]["policy"]["model_name_or_path"]), torch.device("cpu"))
    stream = PromptStream(mixture, PromptTemplate(policy.tokenizer, config["data"]["system_prompt"]), seed=0)
    batch = collate([stream[k] for k in range(args.prompts)])
    sampling = Sampling(args.generations, config["model"]["sampling"]["max_new_tokens"])
    seconds: dict[str, list[float]] = {"ours": [], "generate": []}
    tokens: dict[str, list[int]] = {"ours": [], "generate": []}
    for round_ in range(args.rounds + 1):
        for name, sample in (("ours", ours), ("generate", generate)):
            began = time.perf_counter()
            count = sample(policy, batch, sampling, round_)
            if round_:
                seconds[name].append(time.perf_counter() - began)
                tokens[name].append(count)
    result = {
        "rollouts": args.prompts * args.generations,
        "seconds": {name: round(median(times), 4) for name, times in seconds.items()},
        "tokens": {name: median(counts) for name, counts in tokens.items()},
        "times_as_fast": round(median(b / a for a, b in zip(seconds["ours"], seconds["generate"], strict=True)), 2),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
