"""What is asked of vLLM for a rollout, and the rollout made of its answers, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rl_lightning.rollout.sampling import Sampling
from rl_lightning.types import PromptBatch, Rollout, UserError


@dataclass(frozen=True)
class Request:
    """One completion to sample: a prompt's token ids, and the arguments of vLLM's SamplingParams."""

    prompt: list[int]
    params: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A completion: its row, its token ids with the end token, their log-probs, and whether it ended by itself."""

    row: int
    tokens: list[int]
    logps: list[float]
    ended: bool


def requests_of(prompts: PromptBatch, sampling: Sampling, draws: Tensor | None, end_tokens: list[int]) -> list[Request]:
    """A request a row: its seed are the 53 random bits of the row's first draw; without draws a greedy one a prompt."""
    lengths = prompts.prompt_lengths.tolist()
    ids = [row[:length] for row, length in zip(prompts.prompt_ids.tolist(), lengths, strict=True)]
    shared: dict[str, Any] = {"max_tokens": sampling.max_new_tokens, "stop_token_ids": end_tokens}
    if draws is None:
        return [Request(prompt, {**shared, "temperature": 0.0}) for prompt in ids]
    shared |= {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    seeds = (draws[:, 0] * 2**53).long().tolist()
    return [Request(ids[n // sampling.num_generations], {**shared, "seed": seed}) for n, seed in enumerate(seeds)]


def rollout_of(prompts: PromptBatch, rows: list[Finished], texts: list[str], pad_token_id: int) -> Rollout:
    """The rollout of all rows, as wide as the longest one.

    Raises:
        UserError: a log-prob is not finite.
    """
    lengths = torch.tensor([len(row.tokens) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids, logps = torch.full(mask.shape, pad_token_id), torch.zeros(mask.shape)
    ids[mask] = torch.tensor([token for row in rows for token in row.tokens])
    logps[mask] = torch.tensor([logp for row in rows for logp in row.logps])
    if wrong := int((~logps.isfinite()).sum()):
        raise UserError(
            f"model.engine: vLLM gave {wrong} of {int(lengths.sum())} tokens a log-prob that is not finite: its weights or its "
            "cache are broken; resume from the last checkpoint; a new run with model.engine: null samples from the policy itself"
        )
    ended = torch.tensor([row.ended for row in rows])
    ids, mask, logps, ended = (each.to(prompts.prompt_ids.device) for each in (ids, mask, logps, ended))
    return Rollout(prompts.prompt_ids, prompts.prompt_lengths, ids, mask, logps, ended, tuple(texts))
