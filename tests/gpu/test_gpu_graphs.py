"""CUDA graphs against the same steps as ordinary calls."""

from __future__ import annotations

import logging

import pytest
import torch

from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import LocalEngine, local_engine
from rl_lightning.rollout.kept_graphs import KeptGraphs
from rl_lightning.rollout.policy_decoder import ThroughTransformers
from rl_lightning.rollout.steps import Eager
from tests.conftest import shake
from tests.rollout.conftest import SAMPLING, assert_same, uniforms
from tests.rollout.graphs_twin import Called, twin
from tests.rollout.test_kept_graphs import planned, state_of


@pytest.fixture
def policy_on(device, monkeypatch):
    def load(**settings) -> Policy:
        policy = Policy(PolicyConfig("tiny", dtype="float32", **settings), device)
        if device.type == "cpu":
            launch = twin()
            monkeypatch.setattr(local_engine, "launch_of", lambda *_: launch)
        return policy

    return load


def started(policy, batch, keep=True) -> LocalEngine:
    engine = LocalEngine()
    engine.start(policy, planned(policy.config, batch, keep))
    return engine


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({"quantization": "nf4", "rollout_weights": "merged"}, True),
        ({"quantization": "nf4", "rollout_weights": "unmerged"}, True),
        ({"quantization": "none", "lora_r": 0}, True),
        ({"quantization": "nf4", "rollout_weights": "unmerged"}, False),
    ],
    ids=["merged", "unmerged", "whole", "through transformers"],
)
def test_graphs_give_the_tokens_and_log_probs_of_ordinary_calls(settings, own, keep, greedy, policy_on, device, batch):
    """Three rollouts of a policy that is trained between them. In float32, where no rounding decides between two tokens; log-probs
    to 1e-5, because a matrix product may be summed in another order while it is captured."""
    policy, batch = policy_on(**settings), batch.to(device)
    policy.own_network = own
    engine = started(policy, batch, keep)
    assert isinstance(engine.decoder, ThroughTransformers) != own
    draws, texts, states = None if greedy else uniforms(0), set(), set()
    graphs = engine._graphs
    plain = KeptGraphs(Called, 16, graphs._kept, policy.model.parameters)
    for scale in (0.02, 0.05, 0.1):
        if not policy.trains_all:
            shake(policy, scale)
        else:
            with torch.no_grad():
                for weight in policy.trained_parameters():
                    weight *= 1 + scale
        rollouts = []
        for each in (graphs, plain):
            engine._graphs = each
            engine.sync_weights()
            rollouts.append(engine.generate(batch, SAMPLING, draws))
        assert_same(*rollouts)
        texts.add(rollouts[0].texts)
        engine._graphs = graphs
        states.add(state_of(engine))
        if keep:
            assert graphs._held.steps._graphs
            assert not graphs._held.steps.failed
    assert len(texts) > 1
    assert states == {state_of(engine)}  # one for all rollouts, or none


def test_a_capture_that_fails_leads_to_ordinary_calls(policy_on, device, batch, monkeypatch, caplog):
    """Really: what waits for the GPU cannot be captured."""
    policy, batch = policy_on(quantization="none"), batch.to(device)
    engine, plain = started(policy, batch), started(policy, batch)
    plain._graphs = KeptGraphs(Eager)
    for each in (engine, plain):
        each.sync_weights()
    expected = plain.generate(batch, SAMPLING, uniforms(0))
    real = type(engine.decoder).__call__

    def waiting(decoder, ids, positions, attend):
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            torch.cuda.current_stream().synchronize()
        return real(decoder, ids, positions, attend)

    monkeypatch.setattr(type(engine.decoder), "__call__", waiting)
    if device.type == "cpu":
        engine._graphs._launch.failure = torch.AcceleratorError("CUDA error: operation not permitted")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_same(engine.generate(batch, SAMPLING, uniforms(0)), expected)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("decoding goes on without CUDA graphs, which is slower: CUDA error")
