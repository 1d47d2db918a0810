"""CUDA graphs that are kept from one rollout to the next, by their twin on a CPU."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from rl_lightning.memory import Device, make_plan
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import LocalEngine
from rl_lightning.rollout.policy_decoder import Adapted, Merged, Shared, ThroughTransformers
from tests.conftest import shake
from tests.rollout.conftest import SAMPLING, assert_same, uniforms

CPU = torch.device("cpu")


def planned(config: PolicyConfig, batch, keep=True, graphs=16, sampling=SAMPLING):
    """A plan of a step like `batch`, with CUDA graphs, as if there were a GPU."""
    step = sampling.step_shape(len(batch), batch.prompt_ids.shape[1] + 5)
    plan = make_plan(config, step, 4096, "auto", Device("", "cpu", 8e9), LocalEngine())
    return replace(plan, settings=replace(plan.settings, graphs=graphs, keep_graphs=keep))


def started(policy, batch, keep=True, limits=None, graphs=16) -> LocalEngine:
    engine = LocalEngine()
    engine.start(policy, planned(policy.config, batch, keep, graphs), limits)
    engine.sync_weights()
    return engine


def plain(policy, batch, sampling=SAMPLING, seed=0):
    """What an engine without graphs samples from the policy as it is."""
    return sampled(started(policy, batch, keep=False, graphs=0), batch, sampling, seed)


def sampled(engine, batch, sampling=SAMPLING, seed=0):
    group = 1 if seed is None else sampling.num_generations
    draws = None if seed is None else uniforms(seed, len(batch) * group, sampling.max_new_tokens)
    return engine.generate(batch, sampling, draws)


def state_of(engine):
    """The state that is held between rollouts."""
    held = engine._graphs._held
    return held and held.state


KINDS = {
    Merged: {"rollout_weights": "merged"},
    Adapted: {"rollout_weights": "unmerged"},
    Shared: {"lora_r": 0},
    ThroughTransformers: {},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_later_rollouts_replay_the_first_ones_graphs_and_see_the_weights_of_their_day(kind, batch, launch):
    config = PolicyConfig("tiny", quantization="none", **KINDS[kind])
    policy, other = Policy(config, CPU), Policy(config, CPU)
    policy.own_network = other.own_network = kind is not ThroughTransformers
    engine, texts, generator = started(policy, batch), set(), torch.Generator().manual_seed(0)
    assert isinstance(engine.decoder if kind is ThroughTransformers else engine.decoder.layers[0].qkv, kind)
    for _ in range(4):
        with torch.no_grad():
            for weight, same in zip(policy.trained_parameters(), other.trained_parameters(), strict=True):
                weight += 0.01 * torch.randn(weight.shape, generator=generator)
                same.copy_(weight)
        engine.sync_weights()
        rollout = sampled(engine, batch)
        assert_same(rollout, plain(other, batch))
        texts.add(rollout.texts)
    assert len(texts) == 4
    assert len(set(launch.captured)) == len(launch.captured) > 2  # no size twice
    assert launch.replays > 4 * len(launch.captured)


def test_a_rollout_like_one_before_captures_nothing(policy, batch, launch):
    engine = started(policy, batch)
    first, _, state = (
        sampled(engine, batch),
        sampled(engine, batch),
        state_of(engine),
    )  # what ran once is captured in the second
    captured = list(launch.captured)
    assert_same(sampled(engine, batch), first)
    assert launch.captured == captured
    assert state_of(engine) is state
    assert_same(first, plain(policy, batch))


def test_smaller_rollouts_decode_in_the_same_state(policy, batch, launch):
    """Extra prompts, shorter ones, or fewer rows."""
    engine = started(policy, batch)
    sampled(engine, batch)
    state = state_of(engine)
    short = batch.select(slice(1, 3))
    short = replace(short, prompt_ids=short.prompt_ids[:, : int(short.prompt_lengths.max())])
    for some in (batch.select(slice(3, 4)), short, batch):
        assert_same(sampled(engine, some), plain(policy, some))
        assert state_of(engine) is state
    assert len(set(launch.captured)) == len(launch.captured)


@pytest.mark.parametrize(
    ("change", "seed"),
    [
        ({}, None),
        ({"temperature": 0.7}, 0),
        ({"top_k": 3}, 0),
        ({"max_new_tokens": 12}, 0),
        ({"max_rollout_rows": 6}, 0),
    ],
)
def test_a_rollout_of_another_kind_captures_anew_and_so_does_the_next_of_the_first(change, seed, policy, batch, launch):
    engine, other = started(policy, batch), replace(SAMPLING, **change)
    sampled(engine, batch)
    state, captured = weakref.ref(state_of(engine)), len(launch.captured)
    assert_same(sampled(engine, batch, other, seed), plain(policy, batch, other, seed))
    assert state() is None
    assert len(launch.captured) > captured
    assert_same(sampled(engine, batch), plain(policy, batch))


def test_longer_prompts_than_planned_captures_anew(policy, batch, launch):
    engine = started(policy, batch)
    sampled(engine, batch)
    state = weakref.ref(state_of(engine))
    ids = torch.nn.functional.pad(batch.prompt_ids, (40, 0), value=7)
    longer = replace(batch, prompt_ids=ids, prompt_lengths=batch.prompt_lengths + 40)
    assert_same(sampled(engine, longer), plain(policy, longer))
    assert state() is None


def test_weights_that_were_moved_are_captured_anew(batch, launch):
    policy = Policy(PolicyConfig("tiny", quantization="none", rollout_weights="unmerged"), CPU)
    shake(policy)
    engine = started(policy, batch)
    first, state = sampled(engine, batch), weakref.ref(state_of(engine))
    for weight in policy.model.parameters():
        weight.data = weight.data.clone()
    assert_same(sampled(engine, batch), first)
    assert state() is None


def test_rotary_tables_that_were_made_anew_are_captured_anew(policy, batch, launch):
    engine = started(policy, batch)
    first, state = sampled(engine, batch), weakref.ref(state_of(engine))
    engine.decoder.set_max_length(8)
    assert_same(sampled(engine, batch), first)
    assert state() is None


def test_nothing_of_an_earlier_rollout_is_left(policy, batch, launch):
    """Where a policy has gone astray, for example: zero times NaN would be NaN."""
    engine = started(policy, batch)
    first, state = sampled(engine, batch), state_of(engine)
    with torch.inference_mode():
        for buffer in (*state.cache.keys, *state.cache.values, state.logits, state.probs, state.logps):
            buffer.fill_(torch.nan)
    assert_same(sampled(engine, batch), first)
    assert state_of(engine) is state


def test_the_cache_is_kept_only_where_it_is_planned_and_until_the_engine_is_closed(policy, batch, launch):
    engine, kept = started(policy, batch, keep=False), started(policy, batch)
    gc.disable()  # the update needs the memory now
    try:
        sampled(engine, batch)
        assert state_of(engine) is None
        sampled(kept, batch)
        cache = weakref.ref(state_of(kept).cache.keys[0])
        kept.close()
        assert cache() is None
    finally:
        gc.enable()
    kept.start(policy)
    assert_same(sampled(kept, batch), sampled(engine, batch))


def test_the_held_state_is_as_large_as_planned(policy, batch, launch):
    engine = started(policy, batch)
    sampled(engine, batch)
    plan, state = engine._plan, state_of(engine)
    memories = [
        engine.memory(plan.model, plan.step, replace(plan.settings, keep_graphs=keep), plan.device).resident
        for keep in (True, False)
    ]
    assert memories[1].get("cache", 0) == memories[1].get("logits", 0) == 0
    assert sum(each.nbytes for each in (*state.cache.keys, *state.cache.values)) <= memories[0]["cache"]
    assert state.logits.nbytes + state.probs.nbytes <= memories[0]["logits"]
