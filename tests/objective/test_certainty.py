"""Which tokens are trained on, by hand."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.objective import least_sure

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
def test_the_least_sure_of_the_whole_step(share, expected):
    found = least_sure(ENTROPIES, ~ENTROPIES.isnan(), share)
    assert found.int().tolist() == expected


def test_of_none_there_is_none():
    assert not least_sure(ENTROPIES, torch.zeros(2, 3, dtype=torch.bool), 0.5).any()


def test_equals_stay_together():
    assert least_sure(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), 0.2).all()


def test_what_is_not_a_number_is_not_passed_over():
    broken = torch.tensor([[0.1, torch.nan, 0.3]])
    assert least_sure(broken, torch.ones(1, 3, dtype=torch.bool), 0.4).tolist() == [[False, True, True]]
    assert least_sure(torch.full((1, 3), torch.nan), torch.ones(1, 3, dtype=torch.bool), 0.2).all()


def test_rounding_does_not_part_equals():
    entropies = torch.tensor([[1.0, 1.0 + 1e-6, 1.0 - 1e-6, 0.5]])
    assert least_sure(entropies, torch.ones(1, 4, dtype=torch.bool), 0.25).tolist() == [[True, True, True, False]]
