"""Sampling from a decoder, as the tests of the decode loop do."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.rollout import Sampling, local_engine
from rl_lightning.rollout.decode import sample_groups
from rl_lightning.rollout.kept_graphs import KeptGraphs
from rl_lightning.rollout.policy_decoder import decoder_of
from rl_lightning.rollout.sampling import draw_uniforms
from tests.rollout.graphs_twin import twin

SAMPLING = Sampling(num_generations=4, max_new_tokens=24)


def assert_same(ours, theirs):
    assert torch.equal(ours.completion_ids, theirs.completion_ids)
    assert torch.equal(ours.mask, theirs.mask)
    assert torch.equal(ours.finished, theirs.finished)
    assert torch.allclose(ours.sampling_logps, theirs.sampling_logps, atol=1e-5)
    assert ours.texts == theirs.texts


def uniforms(seed: int, rows: int = 24, length: int = 24) -> torch.Tensor:
    return draw_uniforms(torch.Generator().manual_seed(seed), rows, length)


@pytest.fixture(scope="module")
def sample(policy):
    """Sample completions from a merged copy of the policy, or from another decoder; without a seed greedily."""
    merged = decoder_of(policy, merged=True)
    merged.refresh()

    def run(
        batch,
        sampling=SAMPLING,
        seed=0,
        end=None,
        launch=None,
        prompts_at_once=None,
        on_finished=None,
        draws=None,
        decoder=merged,
        graphs=None,
    ):
        if launch is not None:
            graphs = KeptGraphs(launch)
        if draws is None and seed is not None:
            draws = uniforms(seed, len(batch) * sampling.num_generations, sampling.max_new_tokens)
        with decoder.ready():
            return sample_groups(
                decoder,
                batch,
                sampling,
                policy.eos_token_ids if end is None else end,
                policy.decode_text,
                draws,
                policy.pad_token_id,
                on_finished,
                graphs,
                prompts_at_once,
            )

    return run


@pytest.fixture
def launch(monkeypatch):
    """The twin, in place of graphs on a GPU."""
    launch = twin()
    monkeypatch.setattr(local_engine, "launch_of", lambda *_: launch)
    return launch
