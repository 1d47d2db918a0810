"""Make prompts of a given length, the same for every side."""

from __future__ import annotations

import random
from typing import Any

from benchmark.fixed_prompts import FixedPrompts

from rl_lightning.environments.batches import collate
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.stream import Prompt
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.types import Problem, PromptBatch

TASK = "chain_sum"
"""The task whose problems accompany the prompts: its verifier is called for answers, but random weights write none."""


def questions(count: int, shortest: int, longest: int) -> list[str]:
    """Digits, each one token of the tiny policy's tokenizer; lengths are spread evenly."""
    generator = random.Random(0)
    lengths = [shortest + (longest - shortest) * k // max(1, count - 1) for k in range(count)]
    return ["".join(generator.choices("0123456789", k=length)) for length in lengths]


def batch_of(texts: list[str]) -> PromptBatch:
    """The texts' own tokens, without a chat template."""
    tokenizer = load_tokenizer("tiny")
    problems = [Problem(text, task=TASK, index=index) for index, text in enumerate(texts)]
    return collate([Prompt(p, tuple(tokenizer(p.question, add_special_tokens=False).input_ids), {}) for p in problems])


def fixed_prompts(job: dict[str, Any]) -> FixedPrompts:
    """The same batch at every step.

    Args:
        job: `prompts`, number per step; `prompt_tokens`, the shortest and the longest; `steps`, number of steps.
    """
    batch = batch_of(questions(job["prompts"], *job["prompt_tokens"]))
    return FixedPrompts(EnvironmentMixture({TASK: TaskSpec()}), [batch] * job["steps"])
