"""Supervised steps on the policy's own right samples: rejection sampling, as in STaR (arXiv 2203.14465).

The samples may be drawn with worked examples in the prompt, and are trained on as completions of the prompt without them, so that
the policy no longer needs the examples. The gradient of GRPO's loss with advantage 1, and the policy's own log-probs as the old
ones, is that of the mean log-prob, so these steps need no loss of their own.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rl_lightning.objective import token_weights
from rl_lightning.types import PromptBatch, RolloutBatch


def after_prompts(rollouts: RolloutBatch, prompts: PromptBatch) -> RolloutBatch:
    """The same completions after other prompts of the same problems; their log-probs stay those that they were sampled with.

    Args:
        rollouts: of B prompts.
        prompts: B prompts.
    """
    rollout = replace(rollouts.rollout, prompt_ids=prompts.prompt_ids, prompt_lengths=prompts.prompt_lengths)
    return replace(rollouts, prompts=prompts, rollout=rollout)


def right_samples(rollouts: RolloutBatch) -> tuple[Tensor, Tensor]:
    """(B, G) advantages, 1 for completions that are right, well-formed and not truncated, and 0 for the others; and the (N, T)
    token weights of the mean over the tokens of the former. Both are float32."""
    chosen = [score.exact == 1 and score.well_formed for score in rollouts.scores]
    right = torch.tensor(chosen, device=rollouts.rewards.device) & rollouts.rollout.finished
    mask = rollouts.rollout.mask
    return right.view_as(rollouts.rewards).float(), token_weights(mask, "dapo", mask.shape[1], right)
