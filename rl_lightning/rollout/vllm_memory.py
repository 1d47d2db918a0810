"""Predict the memory of vLLM beside the policy, and what it is started for, from the model's shape alone. Not measured on a GPU."""

from __future__ import annotations

import torch

from rl_lightning.memory.breakdown import MemoryBreakdown
from rl_lightning.memory.plan import Plan
from rl_lightning.memory.shapes import ModelShape, model_shape
from rl_lightning.policy import Policy
from rl_lightning.rollout.cache import PREFILL_TOKENS
from rl_lightning.rollout.memory import cache, prefill, token_choice
from rl_lightning.rollout.vllm_core import Room

_BLOCK = 128
"""Tokens in a block of vLLM's cache on a CPU, of which each row fills the last one in part; on a GPU they are smaller."""

_TOKENS, _ROWS = 1024, 64
"""Longest sequence, and sequences at once, where there is no memory plan."""

_LARGEST_SHARE = 0.9
"""Of a GPU's memory, as vLLM's own default."""


def held(shape: ModelShape, bytes_per_element: int, rows: int, tokens: int) -> MemoryBreakdown:
    """Bytes from the start of a rollout to its end: a dense copy of the whole model, and keys and values of all rows.

    Args:
        shape: the model's shape.
        bytes_per_element: bytes of a number in the compute dtype.
        rows: sequences at once.
        tokens: the longest sequence, prompt and completion.
    """
    weights = (shape.linear_weights + shape.frozen_linear_weights + shape.other_weights) * bytes_per_element
    whole_blocks = -(-tokens // _BLOCK) * _BLOCK
    return {"merged copy": weights, "cache": cache(shape, bytes_per_element, (rows + 1) * whole_blocks)}


def passing(shape: ModelShape, bytes_per_element: int, rows: int, filtered: bool) -> MemoryBreakdown:
    """Bytes of one forward pass, and of the choice of a token for each row."""
    return {
        "activations": prefill(shape, bytes_per_element, _batch_tokens(rows)),
        "logits": token_choice(shape, bytes_per_element, rows, filtered),
    }


def _batch_tokens(rows: int) -> int:
    return max(PREFILL_TOKENS, rows)


def room_for(policy: Policy, plan: Plan | None, lora: bool) -> Room:
    """What vLLM is started for: the plan's rows and lengths.

    Args:
        policy: the policy.
        plan: None for 64 rows of up to 1,024 tokens.
        lora: whether it gets the adapter, and not merged weights.
    """
    size, tokens, rows = policy.compute_dtype.itemsize, _TOKENS, _ROWS
    if plan is None:
        shape, config = model_shape(policy.config.model_name_or_path)
        tokens = min(tokens, config.get_text_config().max_position_embeddings)
    else:
        shape, tokens, rows = (
            plan.model.shape,
            plan.step.prompt_tokens + plan.step.new_tokens,
            min(plan.settings.max_rollout_rows, plan.step.rows),
        )
    kept, share = held(shape, size, rows, tokens), _LARGEST_SHARE
    if policy.device.type == "cuda":
        needed = sum(kept.values()) + sum(passing(shape, size, rows, filtered=True).values())
        share = min(share, needed / torch.cuda.mem_get_info(policy.device)[1])
    return Room(tokens, rows, _batch_tokens(rows), int(kept["cache"]), share, policy.config.lora_r if lora else None)
