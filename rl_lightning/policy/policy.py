"""The policy, a base model with LoRA adapters or a model that is trained as a whole: log-probs of sampled tokens, also by the
reference model; saves what is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from rl_lightning.policy import full
from rl_lightning.policy.attention import no_mask
from rl_lightning.policy.config import PolicyConfig, compute_dtype
from rl_lightning.policy.end_tokens import end_token_ids
from rl_lightning.policy.head import Head
from rl_lightning.policy.loading import load_model, load_tokenizer
from rl_lightning.policy.logprobs import tiled_log_probs
from rl_lightning.policy.lora import decoder_layers
from rl_lightning.policy.microbatch import MicroBatch
from rl_lightning.policy.placement import connect
from rl_lightning.types import UserError


class Policy(nn.Module):
    """A base model with LoRA adapters, or with `lora_r` 0 a model whose weights are all trained.

    Args:
        config: the model's settings; gradient checkpointing that is still `auto` is off.
        device: device of the model.
        seed: seed of the adapters' initial values.
        layer_devices: device of each decoder layer, where the layers are laid over several devices, of which `device` is the first;
            see `placement`. None: all are on `device`.
        measures_kl: whether `reference_log_probs` is needed; a model that is trained as a whole then keeps a copy of its weights.

    Attributes:
        model: transformers' model, or PEFT's around it; `base` is transformers'.
        trains_all: whether all weights are trained, and there are no adapters.

    Raises:
        UserError: the model cannot be loaded, or its output head is more than a matrix product.
    """

    def __init__(
        self,
        config: PolicyConfig,
        device: torch.device,
        seed: int = 0,
        measures_kl: bool = False,
        layer_devices: Sequence[torch.device] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = load_tokenizer(config.model_name_or_path)
        self.model: Any = load_model(config, device, seed, layer_devices or ())
        self.compute_dtype, self.trains_all = compute_dtype(config, device), config.lora_r == 0
        _, layers = decoder_layers(self.base)
        self.layer_devices = tuple(layer_devices or [device] * len(layers))
        connect(layers, self.layer_devices)
        if self.trains_all:
            self._trained = full.train_all(self.model, self.compute_dtype)
            self._start = full.sample_of(self._trained)
        else:
            self._trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._weights = [self.model.get_parameter(name) for name in self._trained]  # where the model has them
        kept = self._weights if config.reference == "adapter" or (self.trains_all and measures_kl) else []
        self._reference = [p.detach().clone() for p in kept]  # empty: the reference is the base without adapters
        self.eos_token_ids = end_token_ids(self.model, self.tokenizer).to(device)
        # The self-test finds out: whether sequences may be longer than a sliding window, and rollouts run on their own network.
        self.beyond_window, self.own_network = False, True
        self.opening = ""  # what the prompt has already opened of the assistant's turn, such as "<think>"
        self.pad_token_id = self.tokenizer.pad_token_id or 0
        words = max(self.tokenizer.get_vocab().values()) + 1
        self.head = Head.of(self.model, words)
        self.train()

    @property
    def device(self) -> torch.device:
        """Device of the base model but for decoder layers that are elsewhere."""
        return self.model.get_output_embeddings().weight.device

    @property
    def family(self) -> str:
        """Class name of the base model, for messages."""
        return type(self.base).__name__

    @property
    def base(self) -> Any:
        """Transformers' model, without PEFT's around it."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    def autocast(self) -> torch.autocast:
        """Compute in the base model's dtype; the weights of adapters are float32."""
        return torch.autocast(self.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32)

    def log_probs(self, batch: MicroBatch, temperature: float, entropy_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of a micro-batch's completion tokens; logits are computed for no other tokens.

        Args:
            batch: a micro-batch with M completion tokens.
            temperature: divides the logits.
            entropy_gradient: whether the entropies have a gradient too.

        Returns:
            (M,) float32 log-probs, with gradient to what is trained; (M,) float32 entropies in nats.
        """
        with self.autocast():
            mask = no_mask(self.device)
            hidden = self.hidden_states(batch.input_ids, batch.positions, rows=batch.rows, attention_mask=mask)
        return self.head_log_probs(hidden[batch.predicting], batch.targets, temperature, entropy_gradient)

    def head_log_probs(
        self, hidden: Tensor, targets: Tensor, temperature: float = 1.0, entropy_gradient: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(M,) log-probs and entropies of (M,) targets from (M, H) last hidden states; see `log_probs`."""
        head = self.head
        return tiled_log_probs(
            head.scaled(hidden),
            head.weight,
            targets,
            temperature,
            entropy_gradient,
            softcap=head.softcap,
            words=head.words,
        )

    def train(self, mode: bool = True) -> Policy:
        """Turn gradient checkpointing on or off, where it is set. Dropout, and whatever else a model does in training only, stays
        off, because the update must have the log-probs that were sampled from."""
        super().train(False)
        self.training = mode
        for layer in self.model.modules():
            if getattr(layer, "gradient_checkpointing", False) and isinstance(layer, GradientCheckpointingLayer):
                layer.training = mode  # of this module alone, not of those in it
                vars(layer).update({name: 0.0 for name in vars(layer) if "dropout" in name and name[0] != "_"})
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Policy:
        """Convert or move the module, unless its layers are laid over several devices: Lightning would move all of them to one."""
        return self if len(set(self.layer_devices)) > 1 else super()._apply(fn, recurse)

    def hidden_states(self, ids: Tensor, positions: Tensor, **attention: Any) -> Tensor:
        """From (S,) ids at (S,) positions to (S, H) last hidden states; to be called under `autocast`."""
        decoder = self.base.get_decoder()
        out = decoder(input_ids=ids[None], position_ids=positions[None], use_cache=False, **attention)
        return out.last_hidden_state[0]

    def reference_log_probs(self, batch: MicroBatch, temperature: float) -> Tensor:
        """(M,) float32 log-probs by the reference model: the base, or, with `policy.reference: adapter`, the policy as the run
        began."""
        without = self._started_weights() if self._reference else self.model.disable_adapter()
        with torch.no_grad(), without:
            return self.log_probs(batch, temperature)[0]

    @contextmanager
    def _started_weights(self) -> Iterator[None]:
        """Put the weights that the run began from in place of the trained ones. Only `data` is exchanged, so that autograd still
        finds the trained weights of a forward pass before."""
        trained = [p.data for p in self._weights]
        try:
            for parameter, started in zip(self._weights, self._reference, strict=True):
                parameter.data = started
            yield
        finally:
            for parameter, weights in zip(self._weights, trained, strict=True):
                parameter.data = weights

    def refuse_longer(self, tokens: int) -> None:
        """Raise an error where the model cannot attend over sequences of this length as a whole.

        Args:
            tokens: length of the longest prompt and completion together.

        Raises:
            UserError: the model's context length or its sliding attention window is shorter.
        """
        config = self.model.config
        config = config.get_text_config()
        kinds = getattr(config, "layer_types", None) or ["sliding"]
        slides = not self.beyond_window and any("sliding" in kind for kind in kinds)
        window = (slides and getattr(config, "sliding_window", None)) or config.max_position_embeddings
        context = min(config.max_position_embeddings, window, getattr(config, "attention_chunk_size", None) or window)
        rope = getattr(config, "rope_parameters", None) or {}
        # With these, a sequence beyond the original context changes the rotary encoding of all its positions.
        if rope.get("rope_type") in ("longrope", "dynamic"):
            context = min(context, rope.get("original_max_position_embeddings") or context)
        if tokens > context:
            raise UserError(
                f"data.max_prompt_tokens + model.sampling.max_new_tokens: {tokens} tokens are more than the {context} that "
                f"{self.family} attends over; lower one of them"
            )

    def decode_text(self, token_ids: Tensor) -> str:
        """A completion's token ids as the assistant's turn that a reader sees: `opening`, which the prompt has written, then the
        completion, with special tokens, so that one that contains them can be recognised."""
        return self.opening + self.tokenizer.decode(
            token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def trained_parameters(self) -> list[nn.Parameter]:
        """What an optimizer changes, in float32: the adapters' matrices, or all weights. See `weights_changed`."""
        return list(self._trained.values())

    def weights_changed(self) -> None:
        """Have the model compute with the trained parameters as they are now; to be called after each change of them."""
        full.round_into(self._weights, self.trained_parameters())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients; nn.Module would visit the whole model, which takes longer than some decode steps."""
        for parameter in (*self._trained.values(), *self._weights):
            parameter.grad = None

    def moved_rms(self) -> float:
        """How far the policy has moved from the base: the root mean square of LoRA's B matrices, which are zero in a fresh adapter,
        or of the change of a sample of all weights."""
        if self.trains_all:
            return float((full.sample_of(self._trained) - self._start).square().mean().sqrt())
        matrices = [p.detach() for name, p in self._trained.items() if "lora_B" in name]
        norms = torch.stack([norm.to(self.device) for norm in torch._foreach_norm(matrices)])
        return float(torch.linalg.vector_norm(norms)) / sum(p.numel() for p in matrices) ** 0.5

    def save(self, directory: Path) -> None:
        """Save a PEFT adapter directory, which `PeftModel.from_pretrained(base, directory)` loads, or with `lora_r` 0 the model and
        its tokenizer, which transformers' `from_pretrained` loads."""
        if self.trains_all:
            full.save_model(self.model, self.tokenizer, self._trained, directory)
        else:
            self.model.save_pretrained(directory, save_embedding_layers=False)  # other values may query the model hub

    def load(self, directory: Path) -> None:
        """Read all weights from a directory that `save` has written, with `lora_r` 0.

        Raises:
            UserError: they cannot be read, or are another model's.
        """
        full.load_weights(self._trained, directory)
        self.weights_changed()
