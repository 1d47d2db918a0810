"""The output head of a model: from last hidden states to logits, which may be scaled and soft-capped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """Logits are cap(scale * hidden @ weight.T), where cap(x) = softcap * tanh(x / softcap).

    Attributes:
        weight: (V, H) output embedding.
        words: V', token ids below it are the tokenizer's; the vocabulary may be padded beyond, and those are never sampled.
        scale: multiplies the hidden states (Granite, Cohere).
        softcap: None where logits are not capped (arXiv 2408.00118).
    """

    weight: Tensor
    words: int
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: Any, words: int) -> Head:
        """The head of a transformers model, read from its config.

        Args:
            model: a causal language model.
            words: one more than the largest token id of its tokenizer.
        """
        config, weight = model.config.get_text_config(), model.get_output_embeddings().weight
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        return cls(weight, min(words, len(weight)), scale, getattr(config, "final_logit_softcapping", None))

    def scaled(self, hidden: Tensor) -> Tensor:
        """Hidden states times `scale`, to be multiplied by the weight."""
        return hidden if self.scale == 1 else hidden * self.scale

    def finish(self, logits: Tensor) -> Tensor:
        """Cap (…, V) logits, and remove the token ids that the tokenizer has no words for, in place."""
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        logits[..., self.words :] = -torch.inf
        return logits
