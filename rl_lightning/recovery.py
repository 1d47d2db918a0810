"""When a step goes wrong: too little memory, or numbers that are no numbers."""

from __future__ import annotations

import functools
import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from rl_lightning.types import PromptBatch, Rollout, UserError

log = logging.getLogger(__name__)

MOST_IN_A_ROW = 3
"""So many updates one after the other whose gradient is not finite end the run."""

Method = TypeVar("Method", bound=Callable[..., Any])


def again_with_half(setting: str) -> Callable[[Method], Method]:
    """Where a method of the module runs out of the device's memory, halve a setting for good and call it again.

    The method must be one that can be repeated: it changes nothing before it succeeds.

    Args:
        setting: dotted name of an int that bounds the method's memory, such as "token_budget".

    Raises:
        UserError: there is nothing left to halve.
    """

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def repeated(self: Any, *args: Any, **kwargs: Any) -> Any:
            owner, _, name = f"self.{setting}".rpartition(".")
            holder = functools.reduce(getattr, owner.split(".")[1:], self)
            while True:
                try:
                    return method(self, *args, **kwargs)
                except torch.OutOfMemoryError:
                    half = getattr(holder, name) // 2
                    if half < 1:
                        raise UserError(
                            f"out of memory even with model.{setting}=1; lower model.sampling.max_new_tokens, or take a "
                            "smaller model"
                        ) from None
                setattr(holder, name, half)  # after the handler, so that the failed call's tensors are gone
                gc.collect()
                torch.cuda.empty_cache()
                log.warning(f"out of memory: model.{setting} is {half} from here on; results do not change")

        return repeated  # type: ignore[return-value]

    return decorate


def keep_for_inspection(path: Path, batch: PromptBatch, rollout: Rollout, rewards: torch.Tensor) -> UserError:
    """Save the batch that ended the run; returns the error to raise.

    Args:
        path: the file to write; `torch.load` reads it.
        batch: B prompts.
        rollout: N completions.
        rewards: (B, G).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "questions": [p.question for p in batch.problems],
        "completions": list(rollout.texts),
        "prompt_ids": rollout.prompt_ids.cpu(),
        "completion_ids": rollout.completion_ids.cpu(),
        "mask": rollout.mask.cpu(),
        "sampling_logps": rollout.sampling_logps.cpu(),
        "rewards": rewards.cpu(),
    }
    torch.save(kept, path)
    return UserError(
        f"the gradient was not a finite number in {MOST_IN_A_ROW} updates in a row; the last batch is in {path} (torch.load "
        "reads it); a lower model.learning_rate or another model.policy.dtype may help, and --ckpt_path last goes back to the "
        "last checkpoint"
    )
