"""Compare another engine with the policy before it is trusted: its log-probs, also right after a change of the weights.

An engine may sample from weights or cached keys of the step before and say nothing. That looks like a run that learns badly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rl_lightning.policy import Policy, pack
from rl_lightning.policy.lora import dense_weight, is_adapted
from rl_lightning.rollout.engine import RolloutEngine
from rl_lightning.rollout.sampling import Sampling, draw_uniforms
from rl_lightning.types import Problem, PromptBatch, Rollout, UserError

TOLERANCE = {torch.float32: 1e-3}
"""Largest mean difference of log-probs, in nats. vLLM on a CPU is at 1e-5 in float32."""

TOLERANCE_16_BITS = 0.2
"""The same in 16 bits, where vLLM on a CPU is at 0.02 to 0.08: the prompts are random, so that the next token is uncertain."""

_MOVED_BY = 4
"""The changed weights move the log-probs by this many times the tolerance at least, or old weights would pass for new ones."""

_SIZES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""The changes of the weights to choose from, relative to their size: the first that moves the log-probs that far."""

_TEMPERATURE = 2.0
"""Log-probs before the temperature is applied, which vLLM's server returns unless it is told otherwise, would be far off."""

_PROMPTS, _GROUP, _NEW_TOKENS, _PROMPT_TOKENS = 3, 2, 8, 300
"""Prompts are longer than two blocks of vLLM's prefix cache, which has 128 tokens in each on a CPU, where there is room."""


def check_engine(engine: RolloutEngine, policy: Policy, longest: int, name: str, remedy: str) -> None:
    """Sample from the policy, change its adapters, sample again, and compare both with the policy's own log-probs.

    The policy's adapters are as before afterwards; the engine's weights are not.

    Args:
        engine: an engine that has been started.
        policy: the policy that it samples from.
        longest: tokens that a sequence may have.
        name: the engine's name, for the message.
        remedy: what to do, for the message.

    Raises:
        UserError: it samples from another model, or from old weights.
    """
    tolerance = TOLERANCE.get(policy.compute_dtype, TOLERANCE_16_BITS)
    engine.sync_weights()
    before = _sample(engine, policy, longest)
    _refuse_above(
        tolerance, _difference(before, policy), f"{name} does not sample from {policy.family} as it is", remedy
    )
    with changed_adapters(policy, _size_of_change(policy, before, tolerance)):
        engine.sync_weights()
        after = _sample(engine, policy, longest)
        what = f"{name} does not follow a change of {policy.family}'s weights"
        _refuse_above(tolerance, _difference(after, policy), what, remedy)


def _size_of_change(policy: Policy, rollout: Rollout, tolerance: float) -> float:
    for size in _SIZES:
        with changed_adapters(policy, size):
            if _difference(rollout, policy) >= _MOVED_BY * tolerance:
                return size
    raise UserError(
        f"model.engine: no change of {policy.family}'s adapters moves its log-probs by {_MOVED_BY * tolerance:g} nats, so old "
        "weights could not be told from new ones; use model.engine: null"
    )


def _refuse_above(tolerance: float, difference: float, what: str, remedy: str) -> None:
    if not difference <= tolerance:  # also where it is not a number
        raise UserError(
            f"model.engine: {what}: its log-probs are {difference:.2g} nats from the trainer's on average, and {tolerance:g} are "
            f"allowed; {remedy}"
        )


def _sample(engine: RolloutEngine, policy: Policy, longest: int) -> Rollout:
    """Completions of random prompts, of which two begin alike."""
    generator = torch.Generator().manual_seed(0)
    new = max(1, min(_NEW_TOKENS, longest // 2))
    width = min(_PROMPT_TOKENS, longest - new)
    ids = torch.randint(policy.head.words, (_PROMPTS, width), generator=generator)
    ids[1] = ids[0]
    lengths = torch.tensor([width, max(1, width * 3 // 4), max(1, width // 2)])
    prompts = PromptBatch((Problem(""),) * _PROMPTS, ids, lengths, cursor=0).to(policy.device)
    sampling = Sampling(_GROUP, new, _TEMPERATURE)
    return engine.generate(prompts, sampling, draw_uniforms(generator, _PROMPTS * _GROUP, new))


@torch.no_grad()
def _difference(rollout: Rollout, policy: Policy) -> float:
    """Mean absolute difference of the sampler's log-probs and the policy's present ones, at the same temperature."""
    differences = []
    for micro in pack(rollout, torch.arange(len(rollout.mask), device=policy.device), 10**4):
        logps, _ = policy.log_probs(micro, _TEMPERATURE)
        differences.append((logps - rollout.sampling_logps[micro.row_of, micro.column_of]).abs())
    return float(torch.cat(differences).mean())


@contextmanager
def changed_adapters(policy: Policy, size: float) -> Iterator[None]:
    """Other B matrices meanwhile, by which adapters change each weight by this share of its norm."""
    generator, before = torch.Generator().manual_seed(1), list[tuple[Any, Tensor]]()
    layer: Any
    try:
        for layer in policy.model.modules():
            if is_adapted(layer):
                b = layer.lora_B["default"].weight
                before.append((b, b.data))
                b.data = torch.randn(b.shape, generator=generator).to(b)
                change = layer.get_delta_weight("default").norm()
                b.data *= size * dense_weight(layer.get_base_layer()).float().norm() / change
        yield
    finally:
        for parameter, values in before:
            parameter.data = values
