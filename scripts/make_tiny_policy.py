"""Make the bundled tiny policy from scratch: a Qwen2 with a million parameters, trained by SFT on the quickstart's tasks.

    python scripts/make_tiny_policy.py --out rl_lightning/assets/tiny

It learns two ways to answer. Phase 1 shows mostly examples with thinking (running totals, letters one by one), so that thinking
becomes reliable. Phase 2 is short and shows mostly answers without thinking, so that answering at once becomes the habit (the habit
only: the answer itself is not trained on there, because that makes thinking less reliable). The resulting policy answers without
thinking four times in five and is mostly wrong; it thinks in the other fifth and is mostly right. GRPO finds that difference. SFT
problems come from their own range of item seeds; the questions of 500 evaluation problems per task, drawn with the SFT's own
settings, are left out.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from tiny_tokenizer import END, PAD, build_tokenizer
from torch import Tensor
from torch.nn.utils import parametrize
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import PromptStream, eval_problems, held_out_hashes
from rl_lightning.types import Problem

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
EASIER: dict[str, dict[str, Any]] = {"spell_backward": {"min_word_len": 4}}
"""Where the SFT is wider than the quickstart: spelling is learned on short words, and tested on long ones."""


# --- Thinking, task by task ------------------------------------------------------------------------------------------


def _sum_terms(terms: list[tuple[str, str]]) -> str:
    """Running totals of signed terms, products within a term first: [("+", "3*4"), ("-", "5")] -> `3*4=12;12-5=7`."""
    steps, total = [], 0
    for position, (sign, term) in enumerate(terms):
        factors = [int(f) for f in term.split("*")]
        value = factors[0]
        for factor in factors[1:]:
            steps.append(f"{value}*{factor}={value * factor}")
            value *= factor
        if position == 0:
            total = value
        else:
            new = total + value if sign == "+" else total - value
            steps.append(f"{total}{sign}{value}={new}")
            total = new
    return ";".join(steps)


def work_expression(problem: Problem) -> str:
    """`12 + 34 * 2` -> `34*2=68;12+68=80`, term by term from the left."""
    expression = "+" + problem.payload["metadata"]["expression"].replace(" ", "")
    return _sum_terms([(s, t) for s, t in re.findall(r"([+-])([\d*]+)", expression)])


def work_legs(problem: Problem) -> str:
    """`3 ducks, 2 beetles` -> `3*2=6;2*6=12;6+12=18`."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    animals = problem.payload["metadata"]["animals"]
    return _sum_terms([("+", f"{count}*{ANIMALS[animal]}") for animal, count in animals.items()])


def work_backward(problem: Problem) -> str:
    """`cat` -> ` c a t; t a c`: letter by letter, one token per letter, then in reverse order; the answer only drops the spaces."""
    letters = [f" {letter}" for letter in problem.payload["metadata"]["word"]]
    return "".join(letters) + ";" + "".join(reversed(letters))


WORKINGS: dict[str, Callable[[Problem], str]] = {
    "basic_arithmetic": work_expression,
    "chain_sum": work_expression,
    "leg_counting": work_legs,
    "spell_backward": work_backward,
}


# --- Supervised training ---------------------------------------------------------------------------------------------


class SFTBatches:
    """Batches of prompts with an answer with or without thinking, from the SFT range of item seeds."""

    def __init__(self, stream: PromptStream, tokenizer: Any, seed: int) -> None:
        self.stream, self.tokenizer, self.rng = stream, tokenizer, random.Random(seed)
        self.slot = 0

    def example(self, worked: float, answers: bool) -> tuple[list[int], int, int]:
        """Token ids of a whole conversation, and the start and end of the range that is trained on.

        Args:
            worked: probability of an example with thinking.
            answers: whether answers without thinking are trained on; otherwise only the tokens up to `<answer>` are.
        """
        prompt = self.stream[self.slot]
        self.slot += 1
        problem = prompt.problem
        working = WORKINGS[problem.task](problem) if self.rng.random() < worked else ""
        # The newline makes the choice whether to think one token, so that phase 2 leaves the thinking itself unchanged.
        opening = f"<think>\n{working}</think><answer>" if working else "<think></think><answer>"
        ids = [*prompt.token_ids, *self.tokenizer(opening)["input_ids"]]
        opened = len(ids)
        ids += self.tokenizer(f"{problem.expected}</answer>{END}")["input_ids"]
        return ids, len(prompt.token_ids), len(ids) if working or answers else opened

    def batches(self, size: int, worked: float, answers: bool, pool: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
        """(ids, labels) right-padded, bucketed by length within a pool of `pool` batches; labels are -100 elsewhere."""
        while True:
            examples = sorted((self.example(worked, answers) for _ in range(size * pool)), key=lambda e: len(e[0]))
            groups = [examples[i : i + size] for i in range(0, len(examples), size)]
            self.rng.shuffle(groups)
            for group in groups:
                width = max(len(ids) for ids, _, _ in group)
                ids = torch.tensor([e + [0] * (width - len(e)) for e, _, _ in group])
                labels = torch.full_like(ids, -100)
                for row, (_, start, stop) in enumerate(group):
                    labels[row, start:stop] = ids[row, start:stop]
                yield ids, labels


class RoundedToNF4(torch.nn.Module):
    """The weight as bitsandbytes will hold it; the gradient passes straight through."""

    def forward(self, weight: Tensor) -> Tensor:
        packed, state = quantize_4bit(weight.detach(), quant_type="nf4", compress_statistics=True)
        return weight + (dequantize_4bit(packed, state) - weight).detach()


def round_weights(model: Qwen2ForCausalLM) -> None:
    """All linear layers except the head, which 4-bit loading leaves unchanged."""
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            parametrize.register_parametrization(module, "weight", RoundedToNF4())


def keep_rounded_weights(model: Qwen2ForCausalLM) -> None:
    """Replace the weights by the rounded ones."""
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            parametrize.remove_parametrizations(module, "weight")


def save(model: Qwen2ForCausalLM, tokenizer: Any, directory: Path) -> None:
    """A directory that `from_pretrained` reads."""
    keep_rounded_weights(model)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = model.config.eos_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def train(
    model: Qwen2ForCausalLM, batches: Iterator[tuple[Tensor, Tensor]], rates: list[float], round_at: int = -1
) -> None:
    """AdamW, one step for each learning rate. From step `round_at` on, the linear layers compute with weights rounded to nf4, so
    that loading the policy in 4 bits costs almost no accuracy."""
    optimizer, began = torch.optim.AdamW(model.parameters(), weight_decay=0.01, betas=(0.9, 0.98)), time.time()
    for step, rate in enumerate(rates):
        if step == round_at:
            round_weights(model)
        ids, labels = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        # The mean over examples of the sum over tokens: the choice whether to think counts the same in a batch of short examples
        # as in one of long examples, so the shares shown are the shares learned.
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / len(ids)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 20.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} loss {loss.item():.4f} lr {rate:.1e} {time.time() - began:.0f} s", flush=True)


def warm_up_and_cosine(peak: float, steps: int) -> list[float]:
    return [peak * min((s + 1) / 100, 0.5 * (1 + math.cos(math.pi * s / steps)) + 0.03) for s in range(steps)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000, help="phase 1, steps")
    parser.add_argument("--worked", type=float, default=0.95, help="share of examples with thinking in phase 1")
    parser.add_argument("--habit-steps", type=int, default=400, help="phase 2, steps")
    parser.add_argument("--habit-worked", type=float, default=0.24, help="share of examples with thinking in phase 2")
    parser.add_argument("--habit-lr", type=float, default=1.5e-4, help="phase 2, learning rate")
    parser.add_argument("--batch", type=int, default=64, help="examples per step")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--keep", type=Path, help="also save the policy between the phases, in this directory")
    parser.add_argument("--resume", type=Path, help="do phase 2 only, from a policy that --keep saved")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    data = yaml.safe_load(QUICKSTART.read_text())["data"]
    specs = {name: TaskSpec(**spec) for name, spec in data["datasets"].items()}
    for name, easier in EASIER.items():
        specs[name].config |= easier
    mixture = EnvironmentMixture(specs)
    held_out = held_out_hashes(eval_problems(mixture, data.get("eval_seed", 0), 500))
    sampler = random.Random(0)  # the tokenizer is the same for every seed
    questions = [
        (p.task, p.question.strip())
        for p in (mixture.problem(mixture.draw(-1, k), 2**30 + sampler.randrange(2**30), k) for k in range(20_000))
    ]
    tokenizer = AutoTokenizer.from_pretrained(args.resume) if args.resume else build_tokenizer(questions)
    stream = PromptStream(mixture, PromptTemplate(tokenizer, ""), args.seed, held_out, 512, "sft")
    token_id: Any = tokenizer.convert_tokens_to_ids
    config = Qwen2Config(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=token_id(END),
        pad_token_id=token_id(PAD),
    )
    model = Qwen2ForCausalLM.from_pretrained(args.resume) if args.resume else Qwen2ForCausalLM(config)
    model.train()
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    if not args.resume:
        working = SFTBatches(stream, tokenizer, args.seed).batches(args.batch, worked=args.worked, answers=True)
        train(model, working, warm_up_and_cosine(args.lr, args.steps), args.steps // 2)
        save(model, tokenizer, args.keep or args.out)
    round_weights(model)
    habit = SFTBatches(stream, tokenizer, args.seed).batches(args.batch, worked=args.habit_worked, answers=False)
    train(model, habit, [args.habit_lr * (1 - s / args.habit_steps) for s in range(args.habit_steps)])
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
