"""Coverage: 95% intervals must contain the true value in 95 of 100 suites; counted over 2,000 simulated ones for each scenario.

`python -m tests.statistics.test_coverage` prints the table of docs/evaluation.md.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest

from rl_lightning.statistics.intervals import share_interval
from rl_lightning.statistics.paired import difference_interval
from tests.conftest import ROOT

SUITES = 2000


def labels(sizes):
    return [task for task, size in enumerate(sizes) for _ in range(size)]


def spread(sizes, values):
    """One value per problem, from one per task."""
    return np.repeat(np.array(values, dtype=float), sizes)


def accuracy(sizes, better, worse):
    """Right or wrong: shares of problems of each task that got better and worse."""

    def draw(rng):
        drawn = rng.random((SUITES, sum(sizes)))
        up, down = spread(sizes, better), spread(sizes, worse)
        return (drawn < up) * 1.0 - (drawn > 1 - down), float((up - down).mean())

    return difference_interval, sizes, draw


def mixed(n):
    """Right or wrong, each suite with shares of its own: up to half of the problems get better, up to a fifth worse."""

    def draw(rng):
        up, down = rng.uniform(0.05, 0.5, (SUITES, 1)), rng.uniform(0, 0.2, (SUITES, 1))
        drawn = rng.random((SUITES, n))
        return (drawn < up) * 1.0 - (drawn > 1 - down), (up - down)[:, 0]

    return difference_interval, [n], draw


def partial(sizes, better, worse, noise):
    """Scores that begin at 0.01 or anywhere between, jump to 1 or fall to 0, or wobble a little."""

    def draw(rng):
        shape = (SUITES, sum(sizes))
        drawn = rng.random(shape)
        before = np.where(rng.random(shape) < 0.5, 0.01, rng.beta(2, 2, shape))
        moved = np.where(drawn < better, 1 - before, np.where(drawn > 1 - worse, -before, 0.0))
        wobble = rng.normal(0, 0.05, shape) * ((drawn >= better) & (drawn < better + noise))
        return moved + wobble, better * (1 - 0.255) - worse * 0.255

    return difference_interval, sizes, draw


def samples(sizes, k, gain):
    """Shares of k right samples, problems of very different difficulty; each loses `gain` of its distance to 1."""

    def draw(rng):
        before = rng.beta(0.4, 1, (SUITES, sum(sizes)))
        after = before + gain * (1 - before)
        return (rng.binomial(k, after) - rng.binomial(k, before)) / k, gain * (1 - 0.4 / 1.4)

    return difference_interval, sizes, draw


def share(sizes, right, k=1):
    """The accuracy itself, of one evaluation."""

    def draw(rng):
        p = spread(sizes, right)
        return rng.binomial(k, p, (SUITES, sum(sizes))) / k, float(p.mean())

    return share_interval, sizes, draw


HELD = {
    "accuracy, 200 problems": accuracy([200], [0.15], [0.05]),
    "accuracy, 200 problems, no true change": accuracy([200], [0.1], [0.1]),
    "accuracy, 200 problems, quickstart's gain": accuracy([50] * 4, [0.9, 0.75, 0.85, 0.7], [0, 0.01, 0.01, 0.02]),
    "accuracy, 4 unlike tasks of 50": accuracy([50] * 4, [0.8, 0.1, 0.4, 0.02], [0.01, 0.05, 0.05, 0.02]),
    "accuracy, 5 tasks of 40": accuracy([40] * 5, [0.1, 0.05, 0.3, 0.02, 0.15], [0.05, 0.05, 0.05, 0.02, 0.1]),
    "accuracy, 20 tasks of 10": accuracy([10] * 20, np.linspace(0.02, 0.6, 20), [0.03] * 20),
    "accuracy, 20 problems, any share of changes": mixed(20),
    "accuracy, 20 problems, 3 in 10 better": accuracy([20], [0.3], [0.1]),
    "accuracy, 50 problems, any share of changes": mixed(50),
    "partial scores, 50 problems, a third better": partial([50], 0.3, 0.05, 0.3),
    "partial scores, 200 problems": partial([200], 0.3, 0.05, 0.3),
    "partial scores, 200 problems, few changes": partial([200], 0.1, 0.05, 0.3),
    "partial scores, 4 tasks of 50": partial([50] * 4, 0.2, 0.05, 0.3),
    "4 samples, 50 problems": samples([50], 4, 0.2),
    "4 samples, 4 tasks of 50": samples([50] * 4, 4, 0.1),
    "8 samples, 20 tasks of 10": samples([10] * 20, 8, 0.1),
    "share right, 200 problems": share([200], [0.3]),
    "share right, 4 unlike tasks of 50": share([50] * 4, [0.9, 0.1, 0.5, 0.3]),
    "share right, 4 samples of 200 problems": share([200], [0.3], 4),
}
"""Scenarios in which coverage is 95% to within a point."""

WIDER = {
    "accuracy, 20 problems, 1 in 10 better": accuracy([20], [0.1], [0.05]),
    "accuracy, 20 problems, 8 in 10 better": accuracy([20], [0.8], [0.0]),
    "accuracy, 2 opposite tasks of 50": accuracy([50] * 2, [0.97, 0.01], [0, 0.01]),
}
"""So few problems can change that results come in steps: coverage is more than 95%, never less."""

SHORT = {
    "partial scores, 50 problems, 3 or 4 of them change": partial([50], 0.05, 0.02, 0),
    "partial scores, 20 problems, 3 change and 6 wobble": partial([20], 0.1, 0.05, 0.3),
}
"""No interval can know what the suite has not shown: a rare jump among scores that otherwise stay the same. The docs say so."""

EVERY = HELD | WIDER | SHORT


@cache
def coverage(name: str) -> float:
    interval, sizes, draw = EVERY[name]
    values, truth = draw(np.random.default_rng(0))
    low, high = interval(values, labels(sizes))
    return float(((low <= truth + 1e-12) & (truth <= high + 1e-12)).mean())


@pytest.mark.parametrize("name", HELD)
def test_95_of_100_intervals_hold_the_truth(name):
    assert 0.94 <= coverage(name) <= 0.96


@pytest.mark.parametrize("name", WIDER)
def test_where_chances_come_in_steps_more_do(name):
    assert coverage(name) >= 0.95


@pytest.mark.parametrize("name", SHORT)
def test_where_rare_jumps_decide_fewer_do(name):
    assert 0.8 <= coverage(name) < 0.94


def test_the_docs_have_these_coverages():
    text = (ROOT / "docs" / "evaluation.md").read_text()
    told = {name: float(percent) for name, percent in re.findall(r"^\| (.*?) \| ([\d.]+)% \|", text, re.MULTILINE)}
    assert told.keys() == EVERY.keys()
    assert all(abs(told[name] - 100 * coverage(name)) < 0.25 for name in told)


if __name__ == "__main__":
    for scenario in EVERY:
        print(f"| {scenario} | {100 * coverage(scenario):.1f}% |")
