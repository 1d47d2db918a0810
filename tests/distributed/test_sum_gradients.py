"""The sum of the gradients over the ranks, in operations of bounded size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rl_lightning.distributed import shares, sum_gradients


class Echo:
    """Two ranks with the same gradients."""

    rank, world_size = 0, 2

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def any(self, flag):
        return flag

    def sum(self, values):
        self.sizes.append(values.numel())
        return 2 * values


@pytest.mark.parametrize(
    ("bucket", "sizes"),
    [(2**26, [130]), (100, [60, 70]), (64, [60, 50, 20]), (30, [10, 50, 50, 20]), (1, [10, 50, 50, 20])],
)
def test_gradients_are_summed_in_place_by_buckets(bucket, sizes, monkeypatch):
    monkeypatch.setattr(shares, "BUCKET", bucket)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((10,), (5, 10), (10, 5), (20,))]
    for number, parameter in enumerate(parameters[:3]):
        parameter.grad = torch.full(parameter.shape, number + 1.0)
    before = [parameter.grad for parameter in parameters]
    ranks = Echo()
    assert sum_gradients(parameters, ranks)
    assert ranks.sizes == sizes
    assert all(parameter.grad is grad for parameter, grad in zip(parameters[:3], before, strict=False))
    for number, parameter in enumerate(parameters):
        assert torch.equal(parameter.grad, torch.full(parameter.shape, [2.0, 4.0, 6.0, 0.0][number]))


def test_no_gradient_anywhere_is_none():
    ranks = Echo()
    assert not sum_gradients([nn.Parameter(torch.zeros(3))], ranks)
    assert not ranks.sizes
