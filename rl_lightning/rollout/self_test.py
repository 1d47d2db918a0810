"""Check at load that a model's rollouts and updates are right: a short rollout and its update, against the model's own forward.

Rollouts and packed updates reach into a model's attention and replace its head and adapters' products. A family that does something
more would be trained on wrong log-probs, silently. So a copy of the model in float32, with one layer of each kind, samples from
prompts that rows share, beyond a shortened sliding window; the rows are packed, in train mode; and log-probs, those of a whole
vocabulary, and the gradients of what is trained are compared with transformers' eager attention and PEFT's own layers, row by row.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rl_lightning.policy import Policy, pack
from rl_lightning.policy.lora import is_adapted
from rl_lightning.policy.short_copy import short_copy
from rl_lightning.rollout.decode import sample_groups
from rl_lightning.rollout.policy_decoder import RolloutNetwork, decoder_of
from rl_lightning.rollout.sampling import Sampling, draw_uniforms
from rl_lightning.types import Problem, PromptBatch, Rollout, UserError, first_line

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest error of a log-prob, relative to the spread of the log-probs over the vocabulary; and of the gradients, relative to their
norm. Right families are below 1e-4."""

WINDOW = 6
"""Tokens of a sliding window in the test."""

_NO_WINDOW = 10**6
_PROMPT_LENGTHS = (9, 5)
_ROW_LENGTHS = (8, 3, 5, 8)


@dataclass(frozen=True)
class Errors:
    """Largest relative errors of a policy's short copy; see `TOLERANCE`.

    Attributes:
        sampler: of the log-probs of sampled tokens in the rollout.
        update: of the same in the update.
        head: of the log-probs of the whole vocabulary.
        gradient: of the gradients of what is trained, together.
    """

    sampler: float
    update: float
    head: float
    gradient: float

    @property
    def worst(self) -> tuple[float, str]:
        """The largest error and what it is of; NaN counts as infinite."""
        named = vars(self).items()
        return max((torch.inf if error != error else error, name) for name, error in named)


def self_test(policy: Policy, merged: bool) -> None:
    """Refuse a policy whose rollouts or updates are not what transformers computes; learn whether it can exceed its windows.

    Args:
        policy: a loaded policy; only its `beyond_window` and `own_network` change.
        merged: whether rollouts run on a merged copy.

    Raises:
        UserError: the model cannot be run as rollouts and updates run it, or gives other log-probs or gradients.
    """
    start = time.perf_counter()
    errors = _measure(policy, merged, WINDOW)
    policy.beyond_window = errors.worst[0] <= TOLERANCE
    if not policy.beyond_window:
        errors = _measure(policy, merged, _NO_WINDOW)  # perhaps it is right within its sliding windows
    error, part = errors.worst
    if not error <= TOLERANCE:
        what = {"sampler": "log-probs of the rollout", "update": "log-probs of the update", "head": "logits"}
        raise UserError(
            f"policy.model_name_or_path: {policy.family} is not supported: in a test at load its "
            f"{what.get(part, 'gradients')} are {error:.2g} (relative) off transformers' own, above {TOLERANCE:g}; use another "
            "model, such as Qwen, Llama, Mistral or Gemma (docs/models.md); policy.self_test: false skips the test"
        )
    log.info(f"self-test of {policy.family}: {error:.1g} off transformers' own, {time.perf_counter() - start:.1f} s")


def _measure(policy: Policy, merged: bool, window: int) -> Errors:
    logger = logging.getLogger("rl_lightning.rollout.policy_decoder")
    level = logger.level
    logger.setLevel(logging.ERROR)  # which way the copy is sampled is said of the policy itself
    try:
        short = short_copy(policy, _device(policy), window)
        errors = measure(short, merged)
        policy.own_network = short.own_network  # in float32 a difference shows that rounding hides in 16 bits
        return errors
    except UserError:
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            "out of memory in the test of the model at load; see with nvidia-smi what else uses the GPU; policy.self_test: false "
            "skips the test"
        ) from error
    except Exception as error:  # whatever a model's code may raise when it is run in a way that it was not written for
        raise UserError(
            f"policy.model_name_or_path: {policy.family} is not supported: in a test at load it ends with "
            f"{type(error).__name__}: {first_line(error)}; use another model (docs/models.md); policy.self_test: false skips the "
            "test"
        ) from error
    finally:
        logger.setLevel(level)


def _device(policy: Policy) -> torch.device:
    """The policy's device, or the CPU where a GPU has little room left."""
    if policy.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(policy.device)
        if free < total / 2:
            return torch.device("cpu")
    return policy.device


def measure(policy: Policy, merged: bool) -> Errors:
    """Compare a short copy with transformers' own forward; it is of no use afterwards.

    Args:
        policy: the copy.
        merged: whether rollouts run on a merged copy.
    """
    rollout = _sample(policy, merged)
    uneven = torch.arange(rollout.mask.shape[1], device=policy.device) < torch.tensor(
        _ROW_LENGTHS, device=policy.device
    ).unsqueeze(1)
    (micro,) = pack(replace(rollout, mask=uneven), torch.arange(len(uneven), device=policy.device), 10**6)
    logps, _ = policy.log_probs(micro, 1.0)
    upstream = torch.linspace(-1, 1.5, len(logps), device=policy.device)
    policy.zero_grad()
    (logps * upstream).sum().backward()
    ours = [p.grad.clone() for p in policy.trained_parameters() if p.grad is not None]
    policy.zero_grad()
    _restore_plain_forward(policy)
    reference = _reference(policy, rollout)
    spread = float(reference.detach().std(dim=-1).mean())
    sampled = reference.gather(2, rollout.completion_ids[:, :, None]).squeeze(2)
    (sampled[micro.row_of, micro.column_of] * upstream).sum().backward()
    theirs = [p.grad for p in policy.trained_parameters() if p.grad is not None]
    norm = torch.stack([each.norm() for each in theirs]).norm()
    difference = torch.stack([(a - b).norm() for a, b in zip(ours, theirs, strict=True)]).norm()
    return Errors(
        sampler=float((rollout.sampling_logps - sampled.detach()).abs().max()) / spread,
        update=float((logps - sampled[micro.row_of, micro.column_of]).detach().abs().max()) / spread,
        head=_head_error(policy, rollout) / spread,
        gradient=float(difference / norm),
    )


def _sample(policy: Policy, merged: bool) -> Rollout:
    generator = torch.Generator().manual_seed(0)
    shape = len(_PROMPT_LENGTHS), max(_PROMPT_LENGTHS)
    ids = torch.randint(policy.head.words, shape, generator=generator).to(policy.device)
    lengths = torch.tensor(_PROMPT_LENGTHS, device=policy.device)
    prompts = PromptBatch((Problem(""),) * len(lengths), ids, lengths, cursor=0)
    sampling = Sampling(len(_ROW_LENGTHS) // len(lengths), max(_ROW_LENGTHS))
    draws = draw_uniforms(generator, len(_ROW_LENGTHS), sampling.max_new_tokens)
    decoder = decoder_of(policy, merged)
    policy.own_network = isinstance(decoder, RolloutNetwork)
    decoder.refresh()
    with decoder.ready():
        no_end = torch.empty(0, dtype=torch.int64, device=policy.device)
        return sample_groups(decoder, prompts, sampling, no_end, lambda ids: "", draws)


def _restore_plain_forward(policy: Policy) -> None:
    """Give the copy PEFT's own layers and eager attention, and no train mode."""
    policy.eval()
    for layer in policy.model.modules():
        if is_adapted(layer):
            vars(layer).pop("forward")
    base = policy.base
    for config in (base.config, base.config.get_text_config()):
        config._attn_implementation = "eager"


def _reference(policy: Policy, rollout: Rollout) -> Tensor:
    """(N, T, V') log-probs of the whole vocabulary by the model's own forward, each row by itself."""
    rows = []
    for row, completion in enumerate(rollout.completion_ids):
        prompt = rollout.prompt_ids[row // rollout.group_size]
        prompt = prompt[: int(rollout.prompt_lengths[row // rollout.group_size])]
        model: Any = policy.base
        logits = model(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits
        rows.append(logits[0, len(prompt) - 1 : -1].float().log_softmax(dim=-1))
    return torch.stack(rows)


@torch.no_grad()
def _head_error(policy: Policy, rollout: Rollout) -> float:
    """Largest difference of the log-probs of the whole vocabulary after a prompt."""
    prompt = rollout.prompt_ids[:1, : int(rollout.prompt_lengths[0])]
    model: Any = policy.base
    theirs = model(input_ids=prompt, use_cache=False).logits[0, -1].float().log_softmax(dim=-1)
    hidden = model.get_decoder()(input_ids=prompt, use_cache=False).last_hidden_state[0, -1:]
    every = torch.arange(policy.head.words, device=policy.device)
    ours, _ = policy.head_log_probs(hidden.expand(len(every), -1), every)
    return float((ours - theirs).abs().max())
