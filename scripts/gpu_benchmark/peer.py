"""Run the same steps with TRL's GRPOTrainer and `generate`: 4-bit base, LoRA on all linear layers, same prompts and rewards."""

from __future__ import annotations

import importlib.util
import tempfile
from typing import Any

import torch
from benchmark.shared_settings import TRL_SETTINGS, alternating_rewards
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback

from gpu_benchmark import Report
from gpu_benchmark.device import device_of, now, peak, start_peak
from gpu_benchmark.prompts import questions
from rl_lightning.policy.config import compute_dtype


class StepTimer(TrainerCallback):
    """Reports each step when it is done."""

    def __init__(self, report: Report, device: torch.device) -> None:
        self.report, self.device, self.steps = report, device, list[dict[str, Any]]()
        self.lengths: list[int] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.steps:
            start_peak(self.device)
        self.began = now(self.device)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds = now(self.device) - self.began
        self.steps.append({"seconds": round(seconds, 4), "sampled_tokens": sum(self.lengths), "time/sample": None})
        self.report(steps=self.steps, peak=peak(self.device))


def train(job: dict[str, Any], report: Report) -> None:
    """Run some steps; reports `skipped` with the reason where TRL is not installed.

    Args:
        job: as `steps.train` takes it; `rows`, completions in one forward pass of the update.
    """
    if importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None:
        report(skipped="trl is not installed: pip install -e .[bench]")
        return
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    device = device_of(job["device"])
    timer = StepTimer(report, device)
    tokenizer = AutoTokenizer.from_pretrained(job["path"])

    def reward(prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        timer.lengths = [len(ids) for ids in completion_ids]
        return alternating_rewards(len(completions))

    with tempfile.TemporaryDirectory() as directory:
        GRPOTrainer(
            model=_model(job, device),
            reward_funcs=reward,
            args=GRPOConfig(**_settings(job, device, directory)),
            train_dataset=Dataset.from_list(
                [{"prompt": text} for text in questions(job["prompts"], *job["prompt_tokens"])] * job["steps"]
            ),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[timer],
        ).train()


def _model(job: dict[str, Any], device: torch.device) -> Any:
    from rl_lightning.policy import PolicyConfig

    dtype = compute_dtype(PolicyConfig(job["path"]), device)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        job["path"],
        dtype=dtype,
        quantization_config=quantization,
        attn_implementation="sdpa",
        device_map={"": device},
    )
    for module in model.modules():  # as in policy.loading: on a CPU no gradient passes through repacked weights
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _settings(job: dict[str, Any], device: torch.device, directory: str) -> dict[str, Any]:
    """As fast as it can be on this work without changing it."""
    completions = job["prompts"] * job["generations"]
    return {
        **TRL_SETTINGS,
        "output_dir": directory,
        "use_cpu": device.type == "cpu",
        "bf16": device.type == "cuda",
        "max_steps": job["steps"],
        "per_device_train_batch_size": job["rows"],
        "gradient_accumulation_steps": completions // job["rows"],
        "num_generations": job["generations"],
        "max_completion_length": job["new_tokens"],
        "gradient_checkpointing": job["checkpointing"],
    }
