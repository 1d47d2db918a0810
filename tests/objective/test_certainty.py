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
