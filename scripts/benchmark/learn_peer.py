"""Train TRL's GRPOTrainer on the quickstart until its held-out accuracy reaches the target, scored by rl_lightning's own scorer and
reward."""

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

from benchmark.learning import LearningRun, main, quickstart
from benchmark.peer import trl_config
from benchmark.workloads import Workload, quickstart_tasks
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import PromptStream, eval_problems, held_out_hashes
from rl_lightning.policy.loading import resolve_name
from rl_lightning.scoring import Scorer, WeightedReward
from rl_lightning.types import Problem, Score

MICRO_BATCH = 64
"""Completions in one forward pass of the update: the fastest of 16, 64 and 256, as every pass dequantises the weights again."""


class TokenScorer:
    """The quickstart's verifiers and reward, for completions as token ids."""

    def __init__(self, config: dict[str, Any], tokenizer: Any) -> None:
        self.tokenizer, self.scorer = tokenizer, Scorer(quickstart_tasks())
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

    def __init__(self, run: LearningRun, scorer: TokenScorer, problems: Sequence[Problem]) -> None:
        self.run, self.scorer, self.problems = run, scorer, problems

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.start(lambda: self.accuracy(kwargs["model"], args.max_completion_length))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= self.run.step_ended(
            state.global_step, lambda: self.accuracy(kwargs["model"], args.max_completion_length)
        )

    @torch.no_grad()
    def accuracy(self, model: Any, new_tokens: int) -> float:
        """Accuracy of greedy answers to the held-out problems."""
        tokenizer = self.scorer.tokenizer
        template = PromptTemplate(tokenizer, system_prompt="")
        ids = [list(template.token_ids(problem.question)) for problem in self.problems]
        inputs = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
        model.eval()
        out = model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens)[:, inputs["input_ids"].shape[1] :]
        model.train()
        end = tokenizer.eos_token_id
        completions = [ids[: ids.index(end) + 1] if end in ids else ids for ids in out.tolist()]
        return fmean(score.exact for score, _ in self.scorer(self.problems, completions))


def _messages(problem: Problem) -> list[dict[str, str]]:
    return [{"role": "user", "content": problem.question.strip()}]


def prompts(config: dict[str, Any], tokenizer: Any, seed: int) -> tuple[list[Problem], tuple[Problem, ...]]:
    """The problems of all steps in order, and the held-out ones."""
    data, mixture = config["data"], quickstart_tasks()
    held_out = eval_problems(mixture, 0, data["eval_num_samples"])
    stream = PromptStream(mixture, PromptTemplate(tokenizer, data["system_prompt"]), seed, held_out_hashes(held_out))
    count = config["trainer"]["max_steps"] * data["prompts_per_step"]
    return [stream[k].problem for k in range(count)], held_out


def quantised(name: str) -> Any:
    """The base in 4 bits, as rl_lightning holds it."""
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype=torch.float32, quantization_config=config, attn_implementation="sdpa", device_map={"": "cpu"}
    )
    module: Any
    for (
        module
    ) in model.modules():  # otherwise the first `generate` repacks weights so that no gradient passes through them
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def train(run: LearningRun, micro_batch: int = MICRO_BATCH, **changes: Any) -> None:
    """Train to the target, or to the end of the quickstart.

    Args:
        run: filled in by this function.
        micro_batch: completions in one forward pass of the update.
        changes: sections in place of the quickstart's own.
    """
    config = quickstart() | changes
    model, sampling, name = config["model"], config["model"]["sampling"], resolve_name("tiny")
    tokenizer = AutoTokenizer.from_pretrained(name)
    problems, held_out = prompts(config, tokenizer, run.seed)
    scorer = TokenScorer(config, tokenizer)

    def reward(prompts: Any, completions: Any, completion_ids: Any, number: list[int], **kwargs: Any) -> list[float]:
        return [value for _, value in scorer([problems[k] for k in number], completion_ids)]

    workload = Workload(
        "learn",
        config["data"]["prompts_per_step"],
        sampling["num_generations"],
        sampling["max_new_tokens"],
        peer_rows=micro_batch,
    )
    rate = {"learning_rate": model["learning_rate"], "lr_scheduler_type": model["lr_schedule"]}
    with tempfile.TemporaryDirectory() as directory:
        GRPOTrainer(
            model=quantised(name),
            reward_funcs=reward,
            args=trl_config(workload, directory, config["trainer"]["max_steps"], run.seed, **rate),
            train_dataset=Dataset.from_list([{"prompt": _messages(p), "number": k} for k, p in enumerate(problems)]),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[Evaluator(run, scorer, held_out)],
        ).train()
    scorer.scorer.close()


if __name__ == "__main__":
    main(train, "peer")
