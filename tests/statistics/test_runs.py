"""Student's interval over a few runs: quantiles as in printed tables, the interval as scipy's t test has it, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rl_lightning.statistics.runs import RunMean, mean_over_runs, student_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042)]
)
def test_quantiles_are_those_of_the_printed_tables(freedom, quantile):
    assert student_quantile(freedom) == pytest.approx(quantile, abs=6e-4)


@pytest.mark.parametrize("runs", [2, 3, 5, 20])
def test_the_interval_is_that_of_scipys_t_test(runs):
    values = np.random.default_rng(runs).normal(0.2, 0.05, runs).tolist()
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean_over_runs(values, least=-10, most=10)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_an_interval_worked_out_by_hand():
    # Mean 0.5, deviation 0.1: 2.776 * 0.1 / sqrt(5) = 0.1241.
    found = mean_over_runs([0.4, 0.4, 0.5, 0.6, 0.6], least=0, most=1)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.3759, 0.6241), abs=1e-4)


def test_an_interval_stays_where_values_can_be():
    found = mean_over_runs([0.9, 1.0], least=0, most=1)
    assert (found.low, found.high) == (pytest.approx(0.95 - 12.706 * 0.05, abs=1e-3), 1)


def test_one_run_says_nothing_of_the_spread():
    assert mean_over_runs([0.3], least=-1, most=1) == RunMean(0.3, -1, 1)
    assert mean_over_runs([0.3], least=-1, most=1).within_noise


@pytest.mark.parametrize("runs", [3, 5])
def test_it_holds_the_truth_in_95_of_100_experiments(runs):
    draws = np.random.default_rng(0).normal(0.2, 0.05, (4000, runs))
    held = [found.low <= 0.2 <= found.high for found in (mean_over_runs(list(row), -1, 1) for row in draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.01)
