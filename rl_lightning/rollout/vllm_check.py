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
"""Largest mean difference of log-probs, in nats. vLLM on a CPU is at 5e-6 in float32."""

TOLERANCE_16_BITS = 0.1
"""The same in 16 bits, where vLLM on a CPU is at 0.03."""

_MOVED_BY = 4
"""The changed weights must move the log-probs by this many times the difference, or the comparison would not notice old ones."""

_PROMPTS, _GROUP, _NEW_TOKENS, _PROMPT_TOKENS = 3, 2, 8, 300
"""Prompts are longer than two blocks of vLLM's prefix cache, which has 128 tokens in each on a CPU, where there is room."""


def check_engine(engine: RolloutEngine, policy: Policy, longest: int, name: str) -> None:
    """Sample from the policy, change its adapters, sample again, and compare both with the policy's own log-probs.

    The policy's adapters are as before afterwards; the engine's weights are not.

    Args:
        engine: an engine that has been started.
        policy: the policy that it samples from.
        longest: tokens that a sequence may have.
        name: the engine's name, for the message.

    Raises:
        UserError: it samples from another model, or from old weights.
    """
    tolerance = TOLERANCE.get(policy.compute_dtype, TOLERANCE_16_BITS)
    engine.sync_weights()
    _refuse(name, policy, "", _difference(_sample(engine, policy, longest), policy), tolerance)
    with changed_adapters(policy):
        engine.sync_weights()
        rollout = _sample(engine, policy, longest)
        difference = _difference(rollout, policy)
    moved = _difference(rollout, policy)
    _refuse(name, policy, " right after a change of the weights", difference, min(tolerance, moved / _MOVED_BY))


def _refuse(name: str, policy: Policy, when: str, difference: float, allowed: float) -> None:
    if not difference <= allowed:
        raise UserError(
            f"model.engine: {name} does not sample from {policy.family} as it is trained{when}: its log-probs are "
            f"{difference:.2g} nats from the trainer's on average, and {allowed:.2g} are allowed; model.engine: null samples from "
            "the policy itself"
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
    sampling = Sampling(_GROUP, new)
    return engine.generate(prompts, sampling, draw_uniforms(generator, _PROMPTS * _GROUP, new))


@torch.no_grad()
def _difference(rollout: Rollout, policy: Policy) -> float:
    """Mean absolute difference of the sampler's log-probs and the policy's present ones, at temperature 1."""
    differences = []
    for micro in pack(rollout, torch.arange(len(rollout.mask), device=policy.device), 10**4):
        logps, _ = policy.log_probs(micro, 1.0)
        differences.append((logps - rollout.sampling_logps[micro.row_of, micro.column_of]).abs())
    return float(torch.cat(differences).mean())


@contextmanager
def changed_adapters(policy: Policy) -> Iterator[None]:
    """Other B matrices meanwhile, by which each adapted weight changes by a tenth of its size."""
    generator, before = torch.Generator().manual_seed(1), list[tuple[Any, Tensor]]()
    layer: Any
    try:
        for layer in policy.model.modules():
            if is_adapted(layer):
                b = layer.lora_B["default"].weight
                before.append((b, b.data))
                b.data = torch.randn(b.shape, generator=generator).to(b)
                change = layer.get_delta_weight("default").norm()
                b.data *= 0.1 * dense_weight(layer.get_base_layer()).float().norm() / change
        yield
    finally:
        for parameter, values in before:
            parameter.data = values
