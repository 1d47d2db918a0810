"""Compare the speed of group rollouts with `model.generate`, on the same prompts with the same policy, in one run.

    python scripts/bench_rollout.py

Both sample 8 completions of each of 8 quickstart prompts from the tiny policy (4-bit base, LoRA) at temperature 1, ours on the
merged copy that rollouts use on a CPU. They alternate (A B A B …), and the medians and their ratio are printed. Sampling differs in
its random numbers, so tokens are counted and compared too.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from torch.nn.utils.rnn import pad_sequence

from rl_lightning.environments.batches import collate
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import PromptStream
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.rollout.sampling import draw_uniforms
from rl_lightning.types import PromptBatch


def ours(engine: LocalEngine, batch: PromptBatch, sampling: Sampling, seed: int) -> int:
    """Sample the batch with `LocalEngine`, from the policy's current weights; the number of tokens."""
    generator = torch.Generator().manual_seed(seed)
    draws = draw_uniforms(generator, len(batch) * sampling.num_generations, sampling.max_new_tokens)
    engine.sync_weights()
    return int(engine.generate(batch, sampling, draws).mask.sum())


def generate(policy: Policy, batch: PromptBatch, sampling: Sampling, seed: int) -> int:
    """Sample the batch with transformers' own loop; the number of tokens."""
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
            eos_token_id=policy.eos_token_ids.tolist(),
            pad_token_id=policy.pad_token_id,
        )
    completions = out[:, ids.shape[1] :]
    ended = torch.isin(completions, policy.eos_token_ids)
    before_end = ended.cumsum(dim=1) - ended.long() == 0
    return int(before_end.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=Path, default=Path("configs/quickstart.yaml"), help="config whose tasks and lengths are used"
    )
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7, help="number of counted rounds, after one that is not counted")
    args = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    mixture = EnvironmentMixture({name: TaskSpec(**spec) for name, spec in config["data"]["datasets"].items()})
    policy = Policy(PolicyConfig(config["model"]["policy"]["model_name_or_path"]), torch.device("cpu"))
    engine = LocalEngine()
    engine.start(policy)
    stream = PromptStream(mixture, PromptTemplate(policy.tokenizer, config["data"]["system_prompt"]), seed=0)
    batch = collate([stream[k] for k in range(args.prompts)])
    sampling = Sampling(args.generations, config["model"]["sampling"]["max_new_tokens"])
    seconds: dict[str, list[float]] = {"ours": [], "generate": []}
    tokens: dict[str, list[int]] = {"ours": [], "generate": []}
    for round_ in range(args.rounds + 1):
        for name, sample in (("ours", partial(ours, engine)), ("generate", partial(generate, policy))):
            began = time.perf_counter()
            count = sample(batch, sampling, round_)
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
