"""Intervals, p-values, pass@k and maj@k against scipy, values from the literature, brute force and definitions."""

from __future__ import annotations

from itertools import combinations, product
from math import comb, isclose

import numpy as np
import pytest
from scipy import stats

from rl_lightning.statistics import (
    bootstrap_interval,
    majority_at_k,
    paired_difference,
    paired_score_interval,
    pass_at_k,
    share_interval,
    sign_flip_p,
)
from rl_lightning.statistics.intervals import Z


def changes(better, worse, n):
    return np.array([1.0] * better + [-1.0] * worse + [0.0] * (n - better - worse))


def test_an_interval_contains_the_share_itself_whatever_the_rounding():
    for n in range(1, 200):
        for right in (0, 1, n // 3, n):
            values = np.array([[1.0] * right + [0.0] * (n - right)])
            low, high = share_interval(values, ["a", "b", "c"] * (n // 3) + ["a"] * (n % 3))
            assert 0 <= low[0] <= values.mean() <= high[0] <= 1, (n, right)


def test_the_normal_quantile_is_scipys():
    assert stats.norm.ppf(0.975) == Z


def test_wilsons_interval_of_one_in_ten():
    """(0.0179, 0.4042), as in Newcombe 1998, table I, for 1 of 10 without continuity correction."""
    low, high = share_interval(np.array([[1.0] + [0.0] * 9]), ["t"] * 10)
    assert isclose(low[0], 0.0179, abs_tol=1e-4)
    assert isclose(high[0], 0.4042, abs_tol=1e-4)


@pytest.mark.parametrize("n", [2, 10, 50, 400])
def test_with_one_task_of_right_and_wrong_the_share_has_scipys_wilson_interval(n):
    for right in sorted({0, 1, n // 3, n - 1, n}):
        low, high = share_interval(np.array([[1.0] * right + [0.0] * (n - right)]), ["t"] * n)
        expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_all_right_is_not_certain():
    low, high = share_interval(np.ones((1, 20)), ["a"] * 10 + ["b"] * 10)
    assert isclose(low[0], 20 / (20 + 1.96**2), abs_tol=1e-3)
    assert high[0] == 1


@pytest.mark.parametrize(("better", "worse", "n"), [(12, 2, 50), (1, 0, 20), (3, 9, 20), (90, 4, 200)])
def test_at_tangos_ends_the_score_test_is_just_rejected(better, worse, n):
    """The likeliest share that got worse, given the difference, is looked for on a fine grid."""
    for end in paired_score_interval(changes(better, worse, n)[None], ["t"] * n):
        down = np.linspace(max(0, -end[0]), (1 - end[0]) / 2, 2_000_001)[1:-1]
        fit = (
            better * np.log(down + end[0]) + worse * np.log(down) + (n - better - worse) * np.log(1 - 2 * down - end[0])
        )
        down = down[fit.argmax()]
        statistic = (better - worse - n * end[0]) / np.sqrt(n * (2 * down + end[0] - end[0] ** 2))
        assert isclose(abs(statistic), 1.96, abs_tol=1e-3)


def test_no_change_is_not_known_to_be_none():
    """Of 0 changes in 10 Tango's interval is symmetric, z^2 / (n + z^2) wide each way."""
    low, high = paired_score_interval(np.zeros((1, 10)), ["t"] * 10)
    assert isclose(high[0], 1.96**2 / (10 + 1.96**2), abs_tol=1e-3)
    assert low[0] == -high[0]


def test_tasks_that_differ_leave_less_to_chance():
    """One task all better, one unchanged: had they been drawn from a mixture, 50 of 100 better would say less."""
    values = changes(50, 0, 100)[None]
    one, two = (paired_score_interval(values, tasks) for tasks in (["t"] * 100, ["a"] * 50 + ["b"] * 50))
    assert two.high[0] - two.low[0] < 0.6 * (one.high[0] - one.low[0])
    assert two.low[0] < 0.5 < two.high[0]


def test_half_scores_have_half_the_interval():
    whole = paired_score_interval(changes(12, 2, 50)[None], ["t"] * 50)
    half = paired_score_interval(changes(12, 2, 50)[None] / 2, ["t"] * 50)
    assert np.allclose(np.array(half), np.array(whole) / 2)


def test_the_bootstrap_is_a_function_of_its_data():
    rng = np.random.default_rng(5)
    values = rng.uniform(-0.2, 0.5, (1, 60))
    state = np.random.get_state()[1].copy()
    first, again = (bootstrap_interval(values, ["t"] * 60) for _ in range(2))
    assert first == again
    assert (np.random.get_state()[1] == state).all()
    other = bootstrap_interval(values, ["t"] * 60, seed=1)
    assert other != first
    assert np.allclose(np.array(other), np.array(first), atol=0.02)


def test_the_bootstrap_agrees_with_the_normal_interval_where_that_is_right():
    values = np.random.default_rng(1).uniform(-0.5, 0.7, (1, 2000))
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    low, high = bootstrap_interval(values, ["t"] * 2000)
    assert np.allclose([low[0], high[0]], [values.mean() - half, values.mean() + half], atol=0.002)


def test_the_difference_is_after_minus_before_by_the_problem():
    difference = paired_difference([0, 1, 0, 1, 0], [1, 1, 0, 0, 1], ["t"] * 5)
    assert isclose(difference.mean, 0.2)
    assert difference.low < 0.2 < difference.high


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_problems_say_little_and_raise_nothing(n):
    difference = paired_difference([0.0] * n, [1.0] * n, [str(i) for i in range(n)])
    assert -1 <= difference.low < 0.6
    assert difference.high == 1
    assert paired_difference([0.3] * n, [0.3] * n, ["t"] * n).high > 0.5


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (5, 1), (12, 2), (7, 7), (2, 12)])
def test_with_right_and_wrong_the_p_is_mcnemars_exact_one(better, worse):
    n, least = better + worse, min(better, worse)
    by_hand = min(1.0, 2 * sum(comb(n, i) for i in range(least + 1)) / 2**n)
    assert isclose(sign_flip_p([1] * better + [-1] * worse + [0] * 30), by_hand)


@pytest.mark.parametrize(("better", "worse"), [(1, 0), (5, 1), (7, 7), (40, 22), (300, 251)])
def test_with_right_and_wrong_the_p_is_that_of_scipys_binomial_test(better, worse):
    expected = stats.binomtest(better, better + worse, 0.5).pvalue
    assert sign_flip_p([1] * better + [-1] * worse + [0] * 30) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("differences", [[3, -1, 2, 0, 4], [1, 1, -2, 5, 3, -1, 2], [4, 4, 4, 4, -1, -3, 1, 2, -2]])
def test_with_samples_the_p_is_that_of_scipys_permutation_test(differences):
    test = stats.permutation_test(
        [differences], np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert sign_flip_p(differences) == pytest.approx(test.pvalue, rel=1e-9)


@pytest.mark.parametrize("differences", [[3, -1, 2, 0, 4], [1, 1, -2], [4, 4, 4, 4, -1, -3]])
def test_with_samples_the_p_counts_all_signs(differences):
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = sum(abs(s) >= abs(sum(differences)) for s in sums) / len(sums)
    assert isclose(sign_flip_p(differences), expected)


@pytest.mark.parametrize("right", range(7))
def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_one(right):
    samples = [True] * right + [False] * (6 - right)
    for k in range(1, 7):
        subsets = list(combinations(samples, k))
        assert isclose(pass_at_k(6, right, k), sum(map(any, subsets)) / len(subsets))


def test_pass_at_more_than_was_drawn_is_refused():
    with pytest.raises(ValueError, match="k is 7; it must be in 1..6"):
        pass_at_k(6, 1, 7)


def test_the_majority_answers_and_ties_are_shared():
    assert majority_at_k(["4", "4", "5"], [1, 1, 0]) == 1
    assert majority_at_k(["4", "5", "5"], [1, 0, 0]) == 0
    assert majority_at_k(["4", "5"], [1, 0]) == 0.5
    assert majority_at_k(["4", None, None], [1, 0, 0]) == 1  # no answer is no vote
    assert majority_at_k([None, None], [0, 0]) == 0
