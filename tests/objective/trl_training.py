"""Train the tiny policy on one set of completions twice: with TRL's own GRPOTrainer, and with rl_lightning's objective.

TRL is used as its users use it: a `GRPOConfig`, reward functions, a callback, and the logs and files that it writes. It samples
once and makes `UPDATES` updates with these completions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback

from rl_lightning.objective import LossInputs, Objective, policy_loss, token_weights
from rl_lightning.policy.config import resolve_name

QUESTIONS = ("What is 3 + 4?", "What is 12 - 5 + 7?", "How many legs do 5 cats have?", "Which is more, 2 or 3?")
WORTH = (1.0, 0.5, 2.0, 0.0)
"""What the rewards of a question's completions are multiplied by: the last group has no variance, and so no advantage."""

GROUP_SIZE, MAX_NEW_TOKENS = 4, 16
TEMPERATURE = 1.3
"""Such that some completions end by themselves and others are cut off."""

REWARD_WEIGHTS = (1.0, 0.3)
UPDATES = 3


@dataclass(frozen=True)
class Variant:
    """One objective as both sides call it.

    Attributes:
        ours: the objective.
        without: the same without the setting that the variant is about; its gradients must be others.
        theirs: what differs from TRL's clip with its loss type dapo.
        micro_batches: into how many TRL cuts each update.
        learning_rate: of both.
    """

    ours: Objective
    without: Objective
    theirs: dict[str, Any] = field(default_factory=dict)
    micro_batches: int = 2
    learning_rate: float = 0.05


@dataclass(frozen=True)
class Completions:
    """N completions, `GROUP_SIZE` in turn to each question.

    Attributes:
        prompts: N lists of token ids.
        ids: N lists of token ids.
        finished: (N,) bool, whether the completion ended by itself.
        rewards: (N, 2) float64, the two components before they are weighted.
    """

    prompts: list[list[int]]
    ids: list[list[int]]
    finished: Tensor
    rewards: Tensor


@dataclass
class Updates:
    """What a side made of the completions.

    Attributes:
        advantages: (N,).
        losses: one for each update.
        gradients: one for each update, of all parameters as one vector.
        metrics: one for each update, means over tokens: `clipped_low`, `clipped_high`, and `kl` where there is one.
    """

    advantages: Tensor
    losses: list[float] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)


def load() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(resolve_name("tiny"), dtype=torch.float32)


class GradientRecorder(TrainerCallback):
    """Keeps the gradient of each update."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append(parameters_to_vector([p.grad for p in model.parameters()]))


def trl_settings(variant: Variant, directory: Path) -> dict[str, Any]:
    """The arguments of TRL's GRPOConfig."""
    rows = len(QUESTIONS) * GROUP_SIZE
    return {
        "output_dir": str(directory),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "seed": 3,
        "shuffle_dataset": False,
        "num_generations": GROUP_SIZE,
        "max_completion_length": MAX_NEW_TOKENS,
        "temperature": TEMPERATURE,
        "per_device_train_batch_size": rows // variant.micro_batches,
        "gradient_accumulation_steps": variant.micro_batches,
        "num_iterations": UPDATES,
        "max_steps": UPDATES,
        "optim": "sgd",
        "learning_rate": variant.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,  # gradients are not clipped
        "reward_weights": list(REWARD_WEIGHTS),
        "loss_type": "dapo",
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "logging_steps": 1,
        "log_completions": True,
        "num_completions_to_print": 0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **variant.theirs,
    }


def train_with_trl(variant: Variant, directory: Path) -> tuple[Completions, Updates]:
    """Sample with TRL and make `UPDATES` updates with TRL."""
    pytest.importorskip("trl", reason="needs the extra [bench]")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer, sampled = AutoTokenizer.from_pretrained(resolve_name("tiny")), []

    def ended(completion_ids, worth, **kwargs):
        sampled.extend(completion_ids)
        return [w * (ids[-1] == tokenizer.eos_token_id) for ids, w in zip(completion_ids, worth, strict=True)]

    def remainder(completion_ids, worth, **kwargs):
        return [w * (sum(ids) % 7) for ids, w in zip(completion_ids, worth, strict=True)]

    dialogues = [[{"role": "user", "content": question}] for question in QUESTIONS]
    recorder = GradientRecorder()
    trainer = GRPOTrainer(
        model=load(),
        reward_funcs=[ended, remainder],
        args=GRPOConfig(**trl_settings(variant, directory)),
        train_dataset=Dataset.from_dict({"prompt": dialogues, "worth": WORTH}),
        processing_class=tokenizer,
        callbacks=[recorder],
    )
    trainer.train()
    prompts = [tokenizer.apply_chat_template(d, add_generation_prompt=True, return_dict=False) for d in dialogues]
    logged = pyarrow.parquet.read_table(directory / "completions" / "completions_00001.parquet")
    completions = Completions(
        prompts=[ids for ids in prompts for _ in range(GROUP_SIZE)],
        ids=sampled,
        finished=torch.tensor([ids[-1] == tokenizer.eos_token_id for ids in sampled]),
        rewards=torch.tensor([logged["ended"].to_pylist(), logged["remainder"].to_pylist()], dtype=torch.float64).T,
    )
    updates = Updates(torch.tensor(logged["advantage"].to_pylist()), gradients=recorder.gradients)
    names = {"clip_ratio/low_mean": "clipped_low", "clip_ratio/high_mean": "clipped_high", "kl": "kl"}
    for logs in trainer.state.log_history[:UPDATES]:
        updates.losses.append(logs["loss"])
        updates.metrics.append({ours: logs[theirs] for theirs, ours in names.items() if theirs in logs})
    return completions, updates


def train_with_objective(completions: Completions, objective: Objective, learning_rate: float) -> Updates:
    """Make the same updates with rl_lightning's objective, all completions in one forward pass."""
    rewards = completions.rewards.view(len(QUESTIONS), GROUP_SIZE, len(REWARD_WEIGHTS))
    advantages = objective.advantages(rewards, torch.tensor(REWARD_WEIGHTS, dtype=torch.float64)).flatten()
    mask = pad_sequence([torch.ones(len(ids), dtype=torch.bool) for ids in completions.ids], batch_first=True)
    counted = completions.finished if objective.mask_truncated_completions else None
    weights = token_weights(mask, objective.loss_type, MAX_NEW_TOKENS, counted)[mask]
    rows = mask.nonzero()[:, 0]
    model, updates = load(), Updates(advantages)
    optimizer = torch.optim.SGD(model.parameters(), learning_rate)
    with torch.no_grad():
        old_logps, _ = score_tokens(model, completions)
    ref_logps = old_logps if objective.beta else None  # the base is the policy before the first update
    for _ in range(UPDATES):
        optimizer.zero_grad()
        logps, entropy = score_tokens(model, completions)
        inputs = LossInputs(logps, old_logps, advantages[rows], weights, rows, ref_logps=ref_logps, entropy=entropy)
        out = policy_loss(inputs, objective)
        out.loss.backward()
        updates.losses.append(out.loss.item())
        updates.gradients.append(parameters_to_vector([p.grad for p in model.parameters()]))
        updates.metrics.append({name: float(total) / len(rows) for name, total in out.metrics.items()})
        optimizer.step()
    return updates


def score_tokens(model: PreTrainedModel, completions: Completions) -> tuple[Tensor, Tensor]:
    """(M,) log-probs and (M,) entropies of all completion tokens, by a plain forward pass."""
    pairs = list(zip(completions.prompts, completions.ids, strict=True))
    ids = pad_sequence([torch.tensor(prompt + completion) for prompt, completion in pairs], batch_first=True)
    places = [torch.arange(len(prompt) + len(completion)) for prompt, completion in pairs]
    attended = pad_sequence([torch.ones_like(p) for p in places], batch_first=True)
    chosen = pad_sequence([p >= len(prompt) for p, (prompt, _) in zip(places, pairs, strict=True)], batch_first=True)
    logits = model(input_ids=ids, attention_mask=attended).logits[:, :-1][chosen[:, 1:]] / TEMPERATURE
    every = logits.log_softmax(dim=-1)
    return every.gather(1, ids[chosen][:, None]).squeeze(1), -(every.exp() * every).sum(dim=1)
