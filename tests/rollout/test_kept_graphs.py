"""CUDA graphs that are kept from one rollout to the next, by their twin on a CPU."""

from __future__ import annotations

import gc
import logging
import weakref
from dataclasses import replace

import pytest
import torch

from rl_lightning.memory import Device, MemoryLimits, halve_on_oom, make_plan
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import LocalEngine, local_engine
from rl_lightning.rollout.policy_decoder import Adapted, Merged, Shared, ThroughTransformers
from rl_lightning.rollout.probe import probe
from rl_lightning.rollout.steps import Eager, Graphs, Recorder, launch_of
from tests.conftest import shake
from tests.rollout.conftest import SAMPLING, assert_same, uniforms
from tests.rollout.graphs_twin import twin

CPU = torch.device("cpu")


@pytest.fixture
def launch(monkeypatch):
    """The twin, in place of graphs on a GPU."""
    launch = twin()
    monkeypatch.setattr(local_engine, "launch_of", lambda *_: launch)
    return launch


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


def test_a_failed_capture_leads_to_ordinary_calls_with_one_line(policy, batch, launch, caplog):
    engine = started(policy, batch)
    first = sampled(engine, batch)
    engine.close()
    launch.captured.clear()
    launch.failure = torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing\nmore")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_same(sampled(engine, batch), first)
    lines = [record.getMessage() for record in caplog.records if "graphs" in record.getMessage()]
    assert lines == [
        "decoding goes on without CUDA graphs, which is slower: CUDA error: operation not permitted when stream is capturing"
    ]
    assert len(launch.captured) == 1
    assert state_of(engine) is None


def test_an_error_of_the_step_itself_is_not_hidden():
    def step(slots, span):
        raise RuntimeError("sizes do not match")

    graphs = twin()(step, 8, 40)
    graphs._called.add((8, 16))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        graphs.run(8, 16)


def test_out_of_memory_gives_up_the_graphs_before_it_halves_the_rows(policy, batch, launch, caplog):
    limits = MemoryLimits.of(1000, 24)
    engine = started(policy, batch, limits=limits)
    launch.failure = torch.OutOfMemoryError("CUDA out of memory")
    with caplog.at_level(logging.WARNING):
        assert_same(sampled(engine, batch), plain(policy, batch))
    assert limits.rollout_rows.value == 24
    assert "out of memory: rollouts use no CUDA graphs from here on" in caplog.text
    assert state_of(engine) is None


def test_an_update_that_runs_out_of_memory_gets_the_cache_first(policy, batch, launch, caplog):
    limits = MemoryLimits.of(1000, 24)
    engine = started(policy, batch, limits=limits)
    first, cache = sampled(engine, batch), weakref.ref(state_of(engine).cache)

    def update():
        if cache() is not None or limits.token_budget.value > 500:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    with caplog.at_level(logging.WARNING):
        assert halve_on_oom(limits.token_budget, update) == "done"
    assert [record.getMessage().split(" from")[0] for record in caplog.records] == [
        "out of memory: CUDA graphs are captured anew in each rollout",
        "out of memory: model.token_budget is 500",
    ]
    assert_same(sampled(engine, batch), first)
    assert state_of(engine) is None
    assert launch.replays > 0


@pytest.mark.parametrize("most", [0, 1, 3])
def test_no_more_sizes_are_captured_than_planned(most):
    launch, done = twin(), []
    graphs = launch(lambda slots, span: done.append((slots, span)), 8, 64, most)
    for _ in range(3):
        for slots in (8, 4, 2):
            for span in (16, 32, 48, 64):
                graphs.run(slots, span)
    assert launch.captured == [(8, 16), (8, 32), (8, 48)][:most]
    assert len(done) == 36


def test_a_capture_that_fails_leaves_the_stream_as_it_was(monkeypatch):
    """torch.cuda.graph stays on the capture's stream where the capture cannot be ended (torch/cuda/graphs.py, `__exit__`)."""
    current = ["the default"]

    class FailingCapture:
        def __init__(self, graph, pool):
            pass

        def __enter__(self):
            current[0] = "the capture's"

        def __exit__(self, *error):
            raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", FailingCapture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: current.__setitem__(0, stream))
    with pytest.raises(torch.AcceleratorError):
        Recorder()(lambda: None)
    assert current == ["the default"]


ROTARY = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize("rope", [ROTARY, {"full_attention": ROTARY, "sliding_attention": {"rope_type": "default"}}])
def test_rotary_encodings_that_change_with_the_length_are_not_captured(rope, caplog):
    policy = Policy(PolicyConfig("tiny", quantization="none"), CPU)
    seen = probe(policy)
    assert ThroughTransformers(policy, seen).uncapturable is None
    policy.base.config.rope_parameters = rope
    why = ThroughTransformers(policy, seen).uncapturable
    devices = [torch.device("cuda")] * 4
    assert launch_of(devices, None) is Graphs
    with caplog.at_level(logging.WARNING):
        assert launch_of(devices, why) is Eager
    assert "no CUDA graphs, which is slower: Qwen2ForCausalLM reads lengths back for its dynamic rotary" in caplog.text
    assert launch_of([torch.device("cuda", 0), torch.device("cuda", 1)], None) is Eager
    assert launch_of([CPU] * 4, None) is Eager
