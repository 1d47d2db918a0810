"""From logits to tokens: temperature, filters and draws against what they say of themselves."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.rollout import sampling as sampling_room
from rl_lightning.rollout.sampling import Sampling, choose, draw, draw_uniforms, token_probs
from rl_lightning.types import UserError

PROBS = torch.tensor([[0.5, 0.3, 0.15, 0.05]])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 2}, [0.5, 0.3, 0, 0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.7}, [0.5, 0.3, 0, 0]),
        ({"top_p": 0.01}, [0.5, 0, 0, 0]),
        ({"min_p": 0.25}, [0.5, 0.3, 0.15, 0]),
        ({"top_k": 3, "top_p": 0.6, "min_p": 0.1}, [0.5, 0.3, 0, 0]),
    ],
)
def test_filters_keep_what_they_say(settings, kept):
    expected = torch.tensor([kept]) / sum(kept)
    assert torch.allclose(token_probs(PROBS.log(), Sampling(**settings)), expected, atol=1e-6)


def test_temperature_divides_the_logits():
    expected = (PROBS.log() / 0.5).softmax(dim=-1)
    assert torch.allclose(token_probs(PROBS.log(), Sampling(temperature=0.5)), expected)


def test_draws_follow_the_distribution():
    uniforms = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens = draw(PROBS.expand(len(uniforms), -1), uniforms)
    frequencies = torch.bincount(tokens, minlength=4) / len(uniforms)
    assert torch.allclose(frequencies, PROBS[0], atol=4 * 0.5 / len(uniforms) ** 0.5)


def test_the_numbers_of_a_rollout_advance_the_generator_by_one_each():
    ours, plain = (torch.Generator().manual_seed(5) for _ in range(2))
    draws = draw_uniforms(ours, 24, 17)
    assert torch.equal(draws, torch.rand((24, 17), generator=plain, dtype=torch.float64))
    assert torch.equal(ours.get_state(), plain.get_state())


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_a_token_of_probability_zero_is_never_drawn(uniform):
    probs = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert draw(probs, torch.tensor([uniform], dtype=torch.float64)).item() == 1


@pytest.mark.parametrize("small", [0, 4096])
@pytest.mark.parametrize("vocabulary", [3, 512, 513, 5_000])
def test_drawing_by_blocks_is_drawing_from_one_running_sum(vocabulary, small, monkeypatch):
    monkeypatch.setattr(sampling_room, "SMALL_VOCAB", small)
    generator = torch.Generator().manual_seed(vocabulary)
    probs = (4 * torch.randn(2_000, vocabulary, generator=generator)).softmax(-1)
    probs[:, ::3] = 0
    uniforms = torch.rand(2_000, generator=generator, dtype=torch.float64)
    uniforms[:2] = torch.tensor([0.0, 1 - 2**-53])
    rising = probs.double().cumsum(dim=1)
    wanted = uniforms * rising[:, -1]
    drawn = draw(probs, uniforms)
    assert (probs.gather(1, drawn[:, None]) > 0).all()
    # Sums of blocks are float32: a number within their rounding of a token's edge may fall to its neighbour.
    above = rising.gather(1, drawn[:, None]).squeeze(1)
    below = above - probs.gather(1, drawn[:, None]).squeeze(1)
    assert (above - wanted >= -1e-6).all()
    assert (below - wanted <= 1e-6).all()
    assert (drawn == torch.searchsorted(rising, wanted[:, None], right=True).squeeze(1)).float().mean() > 0.999


def test_the_likeliest_token_comes_with_its_log_prob():
    chosen, logps = choose(PROBS.log() + 3, Sampling(temperature=0.5), None, torch.empty(1, 4))
    assert chosen.tolist() == [0]
    assert torch.allclose(logps, PROBS[:, 0].log())


@pytest.mark.parametrize(
    "settings",
    [
        {"num_generations": 1},
        {"temperature": 0.0},
        {"top_p": 0.0},
        {"top_k": -1},
        {"min_p": 1.0},
        {"max_new_tokens": 0},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match=f"sampling.{next(iter(settings))}"):
        Sampling(**settings)
