"""Compare the speed of group rollouts with another engine, on the same prompts with the same policy, in one run.

    python scripts/bench_rollout.py                                          # with transformers' generate
    python scripts/bench_rollout.py --against vllm --dtype bfloat16 \
        --config configs/smollm2-135m.yaml --model models/SmolLM2-135M-Instruct --prompts 4 8 32 --new-tokens 96

Both sample 8 completions of each prompt of a config from the policy (LoRA on a 4-bit base, or on one in 16 bits) at temperature 1,
until they end or reach the limit, ours and vLLM on a merged copy, which each refreshes before each rollout. They alternate
(A B A B …), and the medians and their ratio are printed, for each number of prompts. Sampling differs in its random numbers, so
tokens a second are compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
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
from rl_lightning.memory import device_memory, make_plan
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import VLLM, LocalEngine, RolloutEngine, Sampling
from rl_lightning.rollout.sampling import draw_uniforms
from rl_lightning.types import PromptBatch


def sample(engine: RolloutEngine, batch: PromptBatch, sampling: Sampling, seed: int) -> int:
    """Sample the batch with an engine, from the policy's current weights; the number of tokens."""
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


def engines(args: argparse.Namespace, policy: Policy, widest: PromptBatch) -> dict[str, Callable[..., int]]:
    """Ours and the other one, each started; vLLM for the largest rollout."""
    ours = LocalEngine()
    ours.start(policy)
    if args.against == "generate":
        return {"ours": partial(sample, ours), "generate": partial(generate, policy)}
    step = Sampling(args.generations, args.new_tokens).step_shape(len(widest), widest.prompt_ids.shape[1])
    vllm = VLLM("merged")
    vllm.start(policy, make_plan(policy.config, step, "auto", step.rows, device_memory(policy.device), vllm))
    return {"ours": partial(sample, ours), "vllm": partial(sample, vllm)}


def measure(
    sides: dict[str, Callable[..., int]], batch: PromptBatch, sampling: Sampling, rounds: int
) -> dict[str, Any]:
    """Medians of both sides, and how many times as many tokens a second ours samples."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    tokens: dict[str, list[int]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            count = side(batch, sampling, round_)
            if round_:
                seconds[name].append(time.perf_counter() - began)
                tokens[name].append(count)
    rates = {name: [count / each for count, each in zip(tokens[name], seconds[name], strict=True)] for name in sides}
    ours, other = rates.values()
    return {
        "rollouts": len(batch) * sampling.num_generations,
        "seconds": {name: round(median(times), 4) for name, times in seconds.items()},
        "tokens": {name: median(counts) for name, counts in tokens.items()},
        "tokens_per_second": {name: [round(rate) for rate in each] for name, each in rates.items()},
        "times_as_fast": round(median(a / b for a, b in zip(ours, other, strict=True)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=Path, default=Path("configs/quickstart.yaml"), help="config whose tasks and lengths are used"
    )
    parser.add_argument("--model", help="name or directory of the model; the config's by default")
    parser.add_argument("--against", choices=("generate", "vllm"), default="generate")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="without quantisation; by default the config's own"
    )
    parser.add_argument("--prompts", type=int, nargs="+", default=[8])
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, help="length limit; the config's by default")
    parser.add_argument("--rounds", type=int, default=7, help="number of counted rounds, after one that is not counted")
    args = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    mixture = EnvironmentMixture({name: TaskSpec(**spec) for name, spec in config["data"]["datasets"].items()})
    loaded = {"dtype": args.dtype, "quantization": "none"} if args.dtype else {}
    model = args.model or config["model"]["policy"]["model_name_or_path"]
    policy = Policy(PolicyConfig(model, **loaded), torch.device("cpu"))
    args.new_tokens = args.new_tokens or config["model"]["sampling"]["max_new_tokens"]
    stream = PromptStream(mixture, PromptTemplate(policy.tokenizer, config["data"]["system_prompt"]), seed=0)
    batch = collate([stream[k] for k in range(max(args.prompts))])
    sampling, sides = Sampling(args.generations, args.new_tokens), engines(args, policy, batch)
    for prompts in args.prompts:
        some = collate([stream[k] for k in range(prompts)])
        print(json.dumps(measure(sides, some, sampling, args.rounds)), flush=True)


if __name__ == "__main__":
    main()
