"""Put consecutive prompts of a stream together into a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from rl_lightning.environments.stream import Prompt
from rl_lightning.types import PromptBatch


def collate(prompts: Sequence[Prompt]) -> PromptBatch:
    """Right-pad B consecutive prompts of a stream into a batch.

    Returns:
        the batch, on the CPU: (B, P) int64 token ids, P the longest prompt; its cursor is the slot after the last prompt.
    """
    ids = [torch.tensor(p.token_ids) for p in prompts]
    skipped: dict[str, int] = {}
    for prompt in prompts:
        for reason, count in prompt.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
    return PromptBatch(
        tuple(p.problem for p in prompts),
        pad_sequence(ids, batch_first=True),
        torch.tensor([len(i) for i in ids]),
        prompts[-1].problem.index + 1,
        skipped,
    )
