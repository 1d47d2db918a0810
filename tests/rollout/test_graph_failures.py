"""CUDA graphs that cannot be captured, or whose memory is needed elsewhere, by their twin on a CPU."""

from __future__ import annotations

import logging
import weakref

import pytest
import torch

from rl_lightning.memory import MemoryLimits, halve_on_oom
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout.policy_decoder import ThroughTransformers
from rl_lightning.rollout.probe import probe
from rl_lightning.rollout.steps import Eager, Graphs, Recorder, launch_of
from tests.rollout.conftest import assert_same
from tests.rollout.graphs_twin import twin
from tests.rollout.test_kept_graphs import CPU, plain, sampled, started, state_of


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
    assert [record.getMessage().split(" from")[0].split(" for")[0] for record in caplog.records] == [
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
