"""The tokens of the highest entropy, by hand."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.objective import high_entropy_mask

ENTROPIES = torch.tensor([[0.1, 2.0, 0.3], [1.0, torch.nan, torch.nan]])


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.25, [[0, 1, 0], [0, 0, 0]]),
        (0.5, [[0, 1, 0], [1, 0, 0]]),
        (0.75, [[0, 1, 1], [1, 0, 0]]),
        (1.0, [[1, 1, 1], [1, 0, 0]]),
    ],
)
def test_the_tokens_of_the_highest_entropy_of_the_whole_step(share, expected):
    found = high_entropy_mask(ENTROPIES, ~ENTROPIES.isnan(), share)
    assert found.int().tolist() == expected


def test_where_nothing_is_trained_on_nothing_is_chosen():
    assert not high_entropy_mask(ENTROPIES, torch.zeros(2, 3, dtype=torch.bool), 0.5).any()


def test_tokens_of_equal_entropy_stay_together():
    assert high_entropy_mask(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), 0.2).all()


def test_an_entropy_that_is_not_a_number_is_not_passed_over():
    broken = torch.tensor([[0.1, torch.nan, 0.3]])
    assert high_entropy_mask(broken, torch.ones(1, 3, dtype=torch.bool), 0.4).tolist() == [[False, True, True]]
    assert high_entropy_mask(torch.full((1, 3), torch.nan), torch.ones(1, 3, dtype=torch.bool), 0.2).all()


def test_rounding_does_not_part_tokens_of_equal_entropy():
    entropies = torch.tensor([[1.0, 1.0 + 1e-6, 1.0 - 1e-6, 0.5]])
    assert high_entropy_mask(entropies, torch.ones(1, 4, dtype=torch.bool), 0.25).tolist() == [
        [True, True, True, False]
    ]
