"""Run a workload with TRL's GRPOTrainer, set to be as fast as it can be on this work without changing the work.

Differences from its defaults: no gradient checkpointing (a third more work), float32 instead of bfloat16 autocast, no shuffling, no
logging; an update's completions go through the model `peer_rows` at a time.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmark.shared_settings import TRL_SETTINGS, alternating_rewards
from benchmark.side_report import SideReport, StepReport, main
from benchmark.task_prompts import TaskPrompts
from benchmark.workloads import Workload, problems, read_config


class TimedTrainer(GRPOTrainer):
    """GRPOTrainer that times the parts of its own step."""

    generated = 0.0
    """Seconds in `generate`, including decoding to text, in this step."""
    prepared = 0.0
    """Seconds in `generate`, rewards and advantages, in this step."""
    tokens = 0
    longest = 0
    prompt_tokens = 0

    def _generate(self, *args: Any) -> Any:
        began = time.perf_counter()
        result = super()._generate(*args)
        self.generated = time.perf_counter() - began
        return result

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        began = time.perf_counter()
        result = super()._generate_and_score_completions(inputs)
        self.prepared = time.perf_counter() - began
        lengths = result["completion_mask"].sum(dim=1)
        self.tokens, self.longest = int(lengths.sum()), int(lengths.max())
        self.prompt_tokens = int(result["prompt_mask"].sum()) // self.num_generations
        return result


class StepTimer(TrainerCallback):
    """Times steps from end to end and notes memory."""

    trainer: TimedTrainer

    def __init__(self, report: SideReport) -> None:
        self.report, self.last, self.began, self.updated = report, 0.0, 0.0, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.report.model_loaded(sum(p.nbytes for p in kwargs["model"].parameters()))
        self.last = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.report.begin_step()
        self.began = time.perf_counter()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.updated = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now, trainer = time.perf_counter(), self.trainer
        self.report.end_step(
            StepReport(
                seconds=now - self.last,
                sample=trainer.generated,
                train=self.updated - self.began - trainer.prepared,
                sampled_tokens=trainer.tokens,
                trained_tokens=trainer.tokens,
                longest=trainer.longest,
                prompt_tokens=trainer.prompt_tokens,
            )
        )
        self.last = time.perf_counter()


def trl_config(workload: Workload, directory: str, steps: int, seed: int, **changes: Any) -> GRPOConfig:
    """TRL's configuration of a workload."""
    rows = workload.peer_rows
    values: dict[str, Any] = {
        **TRL_SETTINGS,
        "output_dir": directory,
        "use_cpu": True,
        "bf16": False,
        "seed": seed,
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": workload.rows // rows,
        "num_generations": workload.generations,
        "max_completion_length": workload.new_tokens,
        "gradient_checkpointing": False,
    }
    return GRPOConfig(**{**values, **changes})


def reward(prompts: list[Any], completions: list[Any], **kwargs: Any) -> list[float]:
    """See `alternating_rewards`."""
    return alternating_rewards(len(completions))


def run(
    workload: Workload, model: str, steps: int, seed: int = 0, warm_up: int = 0, account: bool = False
) -> dict[str, Any]:
    """Train for `warm_up` and then `steps` steps; returns the report."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    asked = TaskPrompts(read_config(workload.config), tokenizer)
    prompts = [{"prompt": asked.messages(p)} for p in problems(workload, asked, warm_up + steps)]
    report = SideReport("peer", warm_up, account)
    timer = StepTimer(report)
    with tempfile.TemporaryDirectory() as directory:
        timer.trainer = TimedTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa"),
            reward_funcs=reward,
            args=trl_config(workload, directory, warm_up + steps, seed),
            train_dataset=Dataset.from_list(prompts),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[timer],
        )
        timer.trainer.train()
    return report.ended()


if __name__ == "__main__":
    main(run)
