"""An export as its user has loaded it, with what the verification asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig

from rl_lightning.policy.end_tokens import listed

_ROWS = 32
"""Completions that are generated at once."""


class Loaded(Protocol):
    """An export that has been loaded.

    Attributes:
        tokenizer: with its chat template.
        end_token_ids: the tokens at which it ends a completion.
        ends_anyway: those of `end_token_ids` that its program adds, whatever the files say.
        precision: how its weights are rounded, a name in `verification.ROUNDING`.
    """

    tokenizer: Any
    precision: str
    end_token_ids: frozenset[int]
    ends_anyway: frozenset[int]

    def log_probs(self, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
        """(T,) float32, the log-prob of each of T completion tokens after a prompt."""
        ...

    def complete(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """The greedy completion of each prompt as tokens, without an end token."""
        ...


class PlainModel:
    """An export in plain transformers, or plain PEFT; see `Loaded`.

    Args:
        model: in eval mode, on its device.
        tokenizer: of the export.
        generation: of the export.
    """

    def __init__(self, model: Any, tokenizer: Any, generation: GenerationConfig) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.precision = str(model.dtype).removeprefix("torch.")
        self.end_token_ids = frozenset(listed(generation.eos_token_id))
        self.ends_anyway: frozenset[int] = frozenset()

    @torch.inference_mode()
    def log_probs(self, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
        """See `Loaded`."""
        ids = torch.tensor([[*prompt, *completion]], device=self.model.device)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=len(completion) + 1).logits[0, :-1]
        of = ids[0, len(prompt) :, None]
        return logits.float().log_softmax(dim=-1).gather(1, of).squeeze(1).cpu()

    @torch.inference_mode()
    def complete(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """See `Loaded`. What else a generation config may have, such as a repetition penalty, is off: evaluations have none."""
        pad = self.tokenizer.pad_token_id or 0
        self._own_generation(
            GenerationConfig(
                eos_token_id=sorted(self.end_token_ids) or None,
                pad_token_id=pad,
                max_new_tokens=max_new_tokens,
                do_sample=False,
            )
        )
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), _ROWS):
            places = order[start : start + _ROWS]
            longest = max(len(prompts[place]) for place in places)
            ids = torch.tensor([[*[pad] * (longest - len(prompts[place])), *prompts[place]] for place in places])
            padding = torch.tensor([longest - len(prompts[place]) for place in places])
            mask = (torch.arange(longest) >= padding[:, None]).long().to(self.model.device)
            out = self.model.generate(input_ids=ids.to(self.model.device), attention_mask=mask)
            found |= dict(zip(places, (self._until_end(row) for row in out[:, longest:].tolist()), strict=True))
        return [found[place] for place in range(len(prompts))]

    def _own_generation(self, generation: GenerationConfig) -> None:
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        model.generation_config = generation
        self.model.generation_config = generation

    def _until_end(self, ids: list[int]) -> list[int]:
        end = next((place for place, each in enumerate(ids) if each in self.end_token_ids), len(ids))
        return ids[:end]
