"""Limits that are halved where memory runs out."""

from __future__ import annotations

import logging

import pytest
import torch

from rl_lightning.memory import MemoryLimits, halve_on_oom
from rl_lightning.types import UserError


def needing(limits: MemoryLimits, most: int):
    """What runs out of memory where the token budget is larger."""

    def attempt() -> int:
        if limits.token_budget.value > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return limits.token_budget.value

    return attempt


@pytest.mark.parametrize(("most", "left"), [(16, 8), (8, 8), (7, 4), (2, 2), (1, 1)])
def test_a_limit_is_halved_until_it_fits(most, left, caplog):
    limits = MemoryLimits.of(8, 64)
    with caplog.at_level(logging.WARNING):
        assert halve_on_oom(limits.token_budget, needing(limits, most)) == left
    assert (limits.token_budget.value, limits.rollout_rows.value) == (left, 64)
    line = f"model.token_budget is {left} for the next 50 steps; results change by rounding only"
    assert (line in caplog.text) == (left < 8)


def test_where_nothing_is_left_to_halve_the_run_ends_with_one_line():
    limits = MemoryLimits.of(8, 64)
    with pytest.raises(UserError, match="out of memory even with model.token_budget=1") as caught:
        halve_on_oom(limits.token_budget, needing(limits, 0))
    assert "\n" not in str(caught.value)


def test_another_error_is_not_caught():
    limits = MemoryLimits.of(8, 64)

    def broken() -> None:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        halve_on_oom(limits.token_budget, broken)
    assert limits.token_budget.value == 8


def test_what_can_be_spared_is_freed_before_a_limit_is_halved(caplog):
    limits, spare = MemoryLimits.of(8, 64), ["the second thing goes", "the first thing goes"]
    limits.token_budget.first = lambda: spare.pop() if spare else None
    with caplog.at_level(logging.WARNING):
        assert halve_on_oom(limits.token_budget, needing(limits, 4)) == 4
    said = [record.getMessage() for record in caplog.records]
    assert said[:2] == ["out of memory: the first thing goes", "out of memory: the second thing goes"]
    assert len(said) == 3
    with pytest.raises(UserError, match="even with model.token_budget=1"):
        halve_on_oom(limits.token_budget, needing(limits, 0))


def values(limits: MemoryLimits, steps: int) -> list[int]:
    """The token budget after each of so many steps."""
    return [limits.end_step() or limits.token_budget.value for _ in range(steps)]


def test_a_limit_rises_again_and_waits_twice_as_long_where_that_was_too_much():
    limits = MemoryLimits.of(9, 64)
    halve_on_oom(limits.token_budget, needing(limits, 2))
    assert values(limits, 49) == [2] * 49
    assert values(limits, 51) == [4] * 50 + [9]  # a step with little memory to spare is over
    halve_on_oom(limits.token_budget, needing(limits, 4))
    assert values(limits, 100) == [4] * 99 + [9]
    halve_on_oom(limits.token_budget, needing(limits, 4))
    assert values(limits, 200) == [4] * 199 + [9]
    assert values(limits, 1000) == [9] * 1000
    assert limits.rollout_rows.value == 64


def test_the_limit_of_evaluations_does_not_rise_and_no_phase_lowers_another_ones():
    limits = MemoryLimits.of(8, 64, 40)
    limits.eval_rows.halve()
    values(limits, 500)
    assert [limit.value for limit in vars(limits).values()] == [8, 64, 20]
    limits.rollout_rows.halve()
    assert [limit.value for limit in vars(limits).values()] == [8, 32, 20]


def test_a_resumed_run_rises_when_the_other_would_have():
    limits, resumed, other = MemoryLimits.of(8, 64), MemoryLimits.of(8, 64), MemoryLimits.of(6, 64)
    for _ in range(2):
        limits.token_budget.halve()
    values(limits, 70)
    for each in (resumed, other):
        each.restore(limits.state())
    assert values(resumed, 200) == values(limits, 200)
    assert values(limits, 1) == [8]
    assert values(other, 1) == [6]  # planned otherwise: what fitted then says nothing
