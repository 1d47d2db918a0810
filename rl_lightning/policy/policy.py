"""What the algorithm asks of a model: log-probs of what was sampled, the base's own opinion, and adapters on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rl_lightning.policy.attention import no_mask
from rl_lightning.policy.loading import PolicyConfig, compute_dtype, load_model, load_tokenizer
from rl_lightning.policy.logprobs import tiled_log_probs
from rl_lightning.policy.microbatch import MicroBatch
from rl_lightning.policy.rollout_network import RolloutNetwork, ThroughTransformers, rollout_network
from rl_lightning.rollout.network import causal_attention
from rl_lightning.types import UserError

log = logging.getLogger(__name__)


class Policy(nn.Module):
    """A base model with LoRA adapters.

    Args:
        config: which model, and how it is held; what is still `auto` there: no gradient checkpointing, merged rollouts.
        device: where it lives.
        seed: of the adapters' initial values.

    Raises:
        UserError: the model cannot be loaded, or its head is more than a matrix product.
    """

    def __init__(self, config: PolicyConfig, device: torch.device, seed: int = 0) -> None:
        super().__init__()
        self.tokenizer = load_tokenizer(config.model_name_or_path)
        self.model: Any = load_model(config, device, seed)
        self._adapter_parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.compute_dtype = compute_dtype(config, device)
        self.end_token_ids = _end_token_ids(self.model, self.tokenizer).to(device)
        self.pad_token_id = self.tokenizer.pad_token_id or 0
        self._refuse_unusual_head()
        self.rollout_network = self._rollout_network(config.rollout_weights != "trained")
        self.model.train()  # loading leaves it in eval mode, in which there is no gradient checkpointing

    @property
    def device(self) -> torch.device:
        """Where the base lives."""
        return self.model.get_output_embeddings().weight.device

    def autocast(self) -> torch.autocast:
        """Adapters are float32 masters; their products run in the base's dtype."""
        return torch.autocast(self.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32)

    def log_probs(self, batch: MicroBatch, temperature: float, of_entropy: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of a micro-batch's completion tokens; prompt and padding never reach the head.

        Args:
            batch: M completion tokens.
            temperature: divides the logits.
            of_entropy: whether entropies have a gradient too.

        Returns:
            (M,) float32 log-probs with gradient to the adapters; (M,) float32 entropies in nats.
        """
        with self.autocast():
            mask = no_mask(self.device)
            hidden = self._hidden(batch.input_ids, batch.positions, rows=batch.rows, attention_mask=mask)
        head = self.model.get_output_embeddings().weight
        return tiled_log_probs(hidden[batch.predicting], head, batch.targets, temperature, of_entropy)

    def _hidden(self, ids: Tensor, positions: Tensor, **attention: Any) -> Tensor:
        """(S,) ids to (S, H)."""
        decoder = self.model.get_base_model().get_decoder()
        out = decoder(input_ids=ids[None], position_ids=positions[None], use_cache=False, **attention)
        return out.last_hidden_state[0]

    def reference_log_probs(self, batch: MicroBatch, temperature: float) -> Tensor:
        """(M,) float32 log-probs of the base, which is the policy with its adapters switched off."""
        with torch.no_grad(), self.model.disable_adapter():
            return self.log_probs(batch, temperature)[0]

    @contextmanager
    def sampling(self) -> Iterator[RolloutNetwork | ThroughTransformers]:
        """The policy as it is now, ready to sample."""
        # Gradient checkpointing is for training. Only a model that is called itself need know: to tell all its modules takes long.
        called = isinstance(self.rollout_network, ThroughTransformers)
        if called:
            self.model.eval()
        try:
            self.rollout_network.refresh()
            yield self.rollout_network
        finally:
            if called:
                self.model.train()

    def refuse_longer(self, tokens: int) -> None:
        """Refuse sequences that the model cannot attend over as a whole.

        Args:
            tokens: the longest prompt and completion together.

        Raises:
            UserError: its context is shorter, or its attention slides over fewer.
        """
        config = self.model.config
        slides = any("sliding" in kind for kind in getattr(config, "layer_types", None) or ["sliding"])
        window = (slides and getattr(config, "sliding_window", None)) or config.max_position_embeddings
        context = min(config.max_position_embeddings, window)
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") in (
            "longrope",
            "dynamic",
        ):  # positions beyond it are turned otherwise, and so are all before
            context = min(context, rope.get("original_max_position_embeddings") or context)
        if tokens > context:
            raise UserError(
                f"data.max_prompt_tokens + model.sampling.max_new_tokens: {tokens} tokens are more than the {context} that "
                f"{type(self.model.get_base_model()).__name__} attends over; lower one of them"
            )

    def decode_text(self, token_ids: Tensor) -> str:
        """Token ids to text, special tokens included: a completion that writes one should be seen to."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def adapter_parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return self._adapter_parameters

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Only adapters have gradients; nn.Module would walk all of the model, which takes longer than some decode steps."""
        for parameter in self._adapter_parameters:
            parameter.grad = None

    def adapter_rms(self) -> float:
        """Root mean square of LoRA's B matrices, which start at zero: how far the policy has gone from the base."""
        matrices = [p.detach() for name, p in self.model.named_parameters() if "lora_B" in name]
        norms = torch.stack(torch._foreach_norm(matrices))
        return float(torch.linalg.vector_norm(norms)) / sum(p.numel() for p in matrices) ** 0.5

    def save_adapter(self, directory: Path) -> None:
        """Write a PEFT adapter directory; `PeftModel.from_pretrained(base, directory)` reads it."""
        self.model.save_pretrained(directory, save_embedding_layers=False)  # True asks the model hub

    def _rollout_network(self, merged: bool) -> RolloutNetwork | ThroughTransformers:
        """The policy written out for decoding, if that says what the policy says; else through transformers."""
        network = rollout_network(self.model, self.compute_dtype, merged)
        if network is not None:
            ids = torch.arange(1, 9, device=self.device)
            network.room_for(len(ids))
            network.refresh()
            positions = torch.arange(len(ids), device=self.device)
            with torch.no_grad():
                ours = network(ids[None], positions[None], causal_attention)[0]
                with self.autocast():
                    theirs = self._hidden(ids, positions)
            # Their distance as a whole: in 16 bits each layer adds some per mille of rounding, and norms may scale it up.
            most = 1e-3 if self.compute_dtype == torch.float32 else 0.1
            if (ours - theirs).float().norm() <= most * theirs.float().norm():
                return network
        log.warning(
            f"{type(self.model.get_base_model()).__name__} is sampled by transformers' own forward, which is slower"
        )
        return ThroughTransformers(self.model, self.autocast())

    def _refuse_unusual_head(self) -> None:
        """Compare the tiled log-probs with the model's own on two tokens: soft-capped or scaled logits, a head bias …
        would make every ratio wrong in silence."""
        ids = torch.tensor([1, 2, 3], device=self.device)
        with torch.no_grad(), self.autocast():
            hidden = self._hidden(ids, torch.arange(3, device=self.device))
            theirs = self.model(input_ids=ids[None], use_cache=False).logits[0, :2].float().log_softmax(dim=-1)
            ours, _ = tiled_log_probs(hidden[:2], self.model.get_output_embeddings().weight, ids[1:])
        if not self._near(ours, theirs.gather(1, ids[1:, None]).squeeze(1)):
            raise UserError(
                f"policy.model_name_or_path: {type(self.model.get_base_model()).__name__} does more to its logits than one "
                "matrix product, which is not supported; Llama, Qwen, Mistral and Phi models are"
            )

    def _near(self, ours: Tensor, theirs: Tensor) -> bool:
        return torch.allclose(
            ours.float(), theirs.float(), atol=1e-4 if self.compute_dtype == torch.float32 else 0.1, rtol=0.02
        )


def _end_token_ids(model: Any, tokenizer: Any) -> Tensor:
    """Every token that ends a completion: the model's generation config may name several, the tokenizer another."""
    ids: set[int] = set()
    for source in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        ids.update(source if isinstance(source, list) else [] if source is None else [source])
    return torch.tensor(sorted(ids), dtype=torch.int64)
