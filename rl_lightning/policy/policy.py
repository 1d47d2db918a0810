"""What the algorithm asks of a model: log-probs of what was sampled, the base's own opinion, and adapters on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rl_lightning.policy.loading import PolicyConfig, compute_dtype, load_model, load_tokenizer
from rl_lightning.policy.logprobs import CHUNK_TOKENS, chunked_log_probs
from rl_lightning.policy.merged import MergedCopy
from rl_lightning.policy.microbatch import MicroBatch
from rl_lightning.types import UserError


class Policy(nn.Module):
    """A base model with LoRA adapters.

    Args:
        config: which model, and how it is held.
        device: where it lives.
        seed: of the adapters' initial values.

    Raises:
        UserError: the model cannot be loaded, or its head is more than a matrix product.
    """

    def __init__(self, config: PolicyConfig, device: torch.device, seed: int = 0) -> None:
        super().__init__()
        self.tokenizer = load_tokenizer(config.model_name_or_path)
        self.model: Any = load_model(config, device, seed)
        self.compute_dtype = compute_dtype(config, device)
        self.end_token_ids = _end_token_ids(self.model, self.tokenizer).to(device)
        self.pad_token_id = self.tokenizer.pad_token_id or 0
        merge = config.rollout_weights == "merged" or (config.rollout_weights == "auto" and device.type == "cpu")
        self.merged = MergedCopy(self.model, self.compute_dtype) if merge else None
        self._refuse_unusual_head()
        self.model.train()  # loading leaves it in eval mode, in which there is no gradient checkpointing

    @property
    def device(self) -> torch.device:
        """Where the base lives."""
        return self.model.get_output_embeddings().weight.device

    def autocast(self) -> torch.autocast:
        """Adapters are float32 masters; their products run in the base's dtype."""
        return torch.autocast(self.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32)

    def log_probs(self, batch: MicroBatch, temperature: float, chunk: int = CHUNK_TOKENS) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of a micro-batch's completion tokens; prompt and padding never reach the head.

        Args:
            batch: M completion tokens.
            temperature: divides the logits.
            chunk: tokens whose logits are alive at once.

        Returns:
            (M,) float32 log-probs with gradient to the adapters; (M,) float32 entropies in nats without.
        """
        base = self.model.get_base_model()
        with self.autocast():
            hidden = base.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        head = base.get_output_embeddings().weight
        return chunked_log_probs(hidden[batch.predicts], head, batch.targets, temperature, chunk)

    def reference_log_probs(self, batch: MicroBatch, temperature: float) -> Tensor:
        """(M,) float32 log-probs of the base, which is the policy with its adapters switched off."""
        with torch.no_grad(), self.model.disable_adapter():
            return self.log_probs(batch, temperature)[0]

    @contextmanager
    def sampling(self) -> Iterator[Any]:
        """The model, ready to sample: the merged copy if there is one, else the trained one in eval mode (gradient
        checkpointing would switch its cache off) under autocast."""
        if self.merged:
            yield self.merged.refresh()
            return
        self.model.eval()
        try:
            with self.autocast():
                yield self.model
        finally:
            self.model.train()

    def decode_text(self, token_ids: Tensor) -> str:
        """Token ids to text, special tokens included: a completion that writes one should be seen to."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def adapter_parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def save_adapter(self, directory: Path) -> None:
        """Write a PEFT adapter directory; `PeftModel.from_pretrained(base, directory)` reads it."""
        self.model.save_pretrained(directory, save_embedding_layers=False)  # True asks the model hub

    def _refuse_unusual_head(self) -> None:
        """Compare the chunked log-probs with the model's own on two tokens: soft-capped or scaled logits, a head bias …
        would make every ratio wrong in silence."""
        ids = torch.tensor([[1, 2, 3]], device=self.device)
        predicts = torch.tensor([[True, True, False]], device=self.device)
        zero = torch.zeros(2, dtype=torch.int64, device=self.device)
        batch = MicroBatch(zero[:1], ids, predicts, ids[0, 1:], zero, zero)
        with torch.no_grad(), self.sampling() as model:
            logits = model(input_ids=ids, use_cache=False).logits[0, :2].float()
            ours, _ = self.log_probs(batch, 1.0)
        theirs = logits.log_softmax(dim=-1).gather(1, batch.targets[:, None]).squeeze(1)
        tolerance = 1e-4 if self.compute_dtype == torch.float32 else 0.1
        if not torch.allclose(ours, theirs, atol=tolerance, rtol=0.02):
            raise UserError(
                f"policy.model_name_or_path: {type(self.model.get_base_model()).__name__} does more to its logits than one "
                "matrix product, which is not supported; Llama, Qwen, Mistral and Phi models are"
            )


def _end_token_ids(model: Any, tokenizer: Any) -> Tensor:
    """Every token that ends a completion: the model's generation config may name several, the tokenizer another."""
    ids: set[int] = set()
    for source in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        ids.update(source if isinstance(source, list) else [] if source is None else [source])
    return torch.tensor(sorted(ids), dtype=torch.int64)
