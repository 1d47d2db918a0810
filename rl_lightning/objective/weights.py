"""Compute the weight of each token in the loss of a step, which is all that GRPO, Dr. GRPO, DAPO and BNPO differ in."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

LossType = Literal["grpo", "dr_grpo", "dapo", "bnpo"]


def token_weights(mask: Tensor, loss_type: LossType, max_new_tokens: int, counted: Tensor | None = None) -> Tensor:
    """Token weights for a whole step, fixed before it is packed into micro-batches.

    With n a row, N the number of rows (groups without reward variance included) and |n| the tokens of a row:

    - grpo (arXiv 2402.03300): 1 / (N |n|), the mean over completions of the mean over their tokens;
    - dr_grpo (arXiv 2503.20783): 1 / (N max_new_tokens), so that length is neither rewarded nor penalised;
    - dapo (arXiv 2503.14476) and bnpo: 1 / sum |n|, the mean over all tokens of the step. The two differ only
      in a trainer that normalises each micro-batch separately, which this one never does.

    Args:
        mask: (N, T) bool, true on completion tokens.
        loss_type: see above.
        max_new_tokens: the length limit of a completion, in tokens.
        counted: (N,) bool; false takes a row out of the loss, for example a truncated completion. N still counts it.

    Returns:
        (N, T) float32, zero outside the mask.
    """
    mask = mask.float() if counted is None else mask.float() * counted.float()[:, None]
    rows = mask.shape[0]
    if loss_type == "grpo":
        return mask / (rows * mask.sum(dim=1, keepdim=True).clamp(min=1))
    if loss_type == "dr_grpo":
        return mask / (rows * max_new_tokens)
    return mask / torch.clamp(mask.sum(), min=1)
