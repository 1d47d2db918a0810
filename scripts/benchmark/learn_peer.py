"""Train TRL's GRPOTrainer by a config until its held-out accuracy reaches the target, with rl_lightning's scorer and reward."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from trl import GRPOTrainer

from benchmark.learning import LearningRun, main
from benchmark.peer import trl_config
from benchmark.task_prompts import TaskPrompts
from benchmark.workloads import Workload
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.config import resolve_name
from rl_lightning.scoring import Scorer, WeightedReward
from rl_lightning.types import Problem, Score

MICRO_BATCH = {"nf4": 64, "none": 16}
"""Completions in one forward pass of the update, by quantization: with 4 bits the fastest of 16, 64 and 256, as every pass
dequantises the weights again."""


class TokenScorer:
    """The verifiers and the reward of a config, for completions as token ids."""

    def __init__(self, config: dict[str, Any], asked: TaskPrompts) -> None:
        self.tokenizer = asked.tokenizer
        self.scorer = Scorer(asked.mixture, answers=asked.settings.format)
        self.reward = WeightedReward(**config["model"]["reward"]["init_args"])

    def text(self, ids: Sequence[int]) -> str:
        """A completion without its EOS token, as rl_lightning shows it to the verifiers."""
        ended = len(ids) > 0 and ids[-1] == self.tokenizer.eos_token_id
        kept = ids[:-1] if ended else ids
        return str(self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Sequence[int]]) -> list[tuple[Score, float]]:
        """Score and reward of each completion."""
        texts = [self.text(ids) for ids in completions]
        scored = zip(problems, texts, self.scorer(problems, texts), strict=True)
        return [(score, self.reward(problem, text, score)) for problem, text, score in scored]


class Evaluator(TrainerCallback):
    """Evaluates, and ends the training at the target."""

    def __init__(self, run: LearningRun, scorer: TokenScorer, asked: TaskPrompts) -> None:
        self.run, self.scorer, self.asked = run, scorer, asked

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.start(lambda: self.accuracy(kwargs["model"], args.max_completion_length))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= self.run.step_ended(
            state.global_step, lambda: self.accuracy(kwargs["model"], args.max_completion_length)
        )

    @torch.no_grad()
    def accuracy(self, model: Any, new_tokens: int) -> float:
        """Accuracy of greedy answers to the held-out problems."""
        tokenizer, problems = self.asked.tokenizer, self.asked.held_out
        ids = [list(self.asked.token_ids(problem)) for problem in problems]
        inputs = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
        model.eval()
        out = model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens)[:, inputs["input_ids"].shape[1] :]
        model.train()
        end = tokenizer.eos_token_id
        completions = [ids[: ids.index(end) + 1] if end in ids else ids for ids in out.tolist()]
        return fmean(score.exact for score, _ in self.scorer(problems, completions))


def load_base(name: str, quantization: str) -> Any:
    """The base in float32, or in 4 bits as rl_lightning holds it."""
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    of = {"quantization_config": config} if quantization == "nf4" else {}
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype=torch.float32, attn_implementation="sdpa", device_map={"": "cpu"}, **of
    )
    module: Any
    for (
        module
    ) in model.modules():  # otherwise the first `generate` repacks weights so that no gradient passes through them
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def train(run: LearningRun, config: dict[str, Any], micro_batch: int = 0) -> None:
    """Train to the target, or to the config's last step.

    Args:
        run: filled in by this function.
        config: see `benchmark.learning.race_config`.
        micro_batch: completions in one forward pass of the update; 0 for `MICRO_BATCH`.
    """
    model, sampling, data, steps = (
        config["model"],
        config["model"]["sampling"],
        config["data"],
        config["trainer"]["max_steps"],
    )
    policy = PolicyConfig(**model["policy"])
    name, quantization = resolve_name(policy.model_name_or_path), policy.quantization
    tokenizer = AutoTokenizer.from_pretrained(name)
    asked = TaskPrompts(config, tokenizer)
    problems = asked.problems(steps * data["prompts_per_step"], run.seed)
    scorer = TokenScorer(config, asked)

    def reward(prompts: Any, completions: Any, completion_ids: Any, number: list[int], **kwargs: Any) -> list[float]:
        return [value for _, value in scorer([problems[k] for k in number], completion_ids)]

    workload = Workload(
        "learn",
        data["prompts_per_step"],
        sampling["num_generations"],
        sampling["max_new_tokens"],
        peer_rows=micro_batch or MICRO_BATCH[quantization],
    )
    rate = {"learning_rate": model["learning_rate"], "lr_scheduler_type": model["lr_schedule"]}
    with tempfile.TemporaryDirectory() as directory:
        GRPOTrainer(
            model=load_base(name, quantization),
            reward_funcs=reward,
            args=trl_config(workload, directory, steps, run.seed, **rate),
            train_dataset=Dataset.from_list(
                [{"prompt": asked.messages(p), "number": k} for k, p in enumerate(problems)]
            ),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[Evaluator(run, scorer, asked)],
        ).train()
    scorer.scorer.close()


if __name__ == "__main__":
    main(train, "peer")
