"""Each warning is given for a run that has the problem, and for no run that learns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from rl_lightning.training.diagnostics import RULES, History

RECORDED = Path(__file__).parents[1] / "data" / "quickstart_metrics.csv"
"""The metrics that the rules read, of three whole runs of the quickstart (seeds 0, 1, 2)."""

Step = dict[str, float]

LEARNING: Step = {
    "reward/mean": 0.4,
    "reward/exact": 0.3,
    "reward/well_formed": 0.95,
    "completion/tokens": 300,
    "completion/truncated": 0.05,
    "groups/zero_variance_wrong": 0.2,
    "groups/zero_variance_right": 0.1,
    "policy/entropy": 0.3,
    "policy/logprob_mismatch": 0.01,
    "policy/learning_rate": 1e-5,
    "policy/trained_tokens": 9000,
    "left": 0.9,
}


def told(steps: Iterator[Step] | list[Step], evaluations: dict[int, float] | None = None) -> dict[str, tuple[int, str]]:
    """Play a run; which rule spoke, when first, and what it said."""
    history, said = History(window=20), {}
    evaluations = evaluations or {}
    for step, metrics in enumerate(steps, 1):
        if step == 1 and 0 in evaluations:
            history.add_evaluation(0, "suite", evaluations[0], 0.02)
        history.add({"policy/moved_rms": 1e-5 * step, **metrics})
        if step in evaluations:
            history.add_evaluation(step, "suite", evaluations[step], 0.02)
        for rule in RULES if history.start else ():
            if (text := rule(history)) is not None:
                said.setdefault(rule.__name__, (step, text))
    return said


def ramp(name: str, first: float, last: float, steps: int = 60) -> list[Step]:
    """A run in which one metric goes from first to last, and nothing else moves."""
    return [LEARNING | {name: first + (last - first) * k / (steps - 1)} for k in range(steps)]


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_the_healthy_quickstart_is_left_alone(seed):
    with RECORDED.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("seed") == seed]
    evaluations = {int(row["step"]): float(row["eval/accuracy"]) for row in rows if row["eval/accuracy"]}
    assert len(evaluations) == 7
    assert evaluations[60] > 0.9
    steps = [{k: float(v) for k, v in row.items() if v} | {"left": 1 - int(row["step"]) / 60} for row in rows[1:]]
    assert told(steps, evaluations) == {}


def test_a_run_that_stands_still_at_a_fair_level_is_left_alone():
    assert told([LEARNING] * 100) == {}


def test_too_hard_names_the_tasks():
    zebra = {
        "groups/zero_variance_wrong": 0.7,
        "groups/zebra_puzzles/zero_variance_wrong": 0.95,
        "groups/chain_sum/zero_variance_wrong": 0.3,
    }
    said = told([LEARNING | zebra] * 30)
    assert list(said) == ["too_hard"]
    step, text = said["too_hard"]
    assert step == 20
    assert "70%" in text
    assert "zebra_puzzles 95%" in text
    assert "chain_sum" not in text
    assert "data.datasets.<task>.config" in text


def test_too_easy_from_the_start_or_with_most_of_the_run_to_come():
    easy = LEARNING | {"groups/zero_variance_right": 0.8, "reward/exact": 0.95}
    assert list(told([easy | {"left": 0.1}] * 20)) == ["too_easy"]
    learnt = [LEARNING] * 20 + [easy] * 40
    assert list(told(learnt)) == ["too_easy"]
    assert told([step | {"left": 0.3} for step in learnt]) == {}  # that is what a run is for


def test_truncated():
    step, text = told(ramp("completion/truncated", 0.0, 0.9))["truncated"]
    assert step > 40
    assert "max_new_tokens" in text


def test_format_missing_but_not_while_it_is_being_learnt():
    said = told(ramp("reward/well_formed", 0.02, 0.02))
    assert list(said) == ["format_missing"]
    assert "only 2%" in said["format_missing"][1]
    assert told(ramp("reward/well_formed", 0.0, 0.9)) == {}
    nothing = LEARNING | {"reward/well_formed": 0.0, "reward/exact": 0.0, "groups/zero_variance_wrong": 1.0}
    assert list(told([nothing] * 20)) == ["format_missing"]  # easier tasks would not help
    assert list(told([nothing | {"reward/well_formed": 0.9}] * 20)) == ["too_hard"]


def test_entropy_collapsed_but_not_where_the_answers_are_right():
    fallen = ramp("policy/entropy", 0.3, 0.01)
    said = told([*fallen, *[fallen[-1]] * 20])
    assert list(said) == ["entropy_collapsed"]
    assert "from 0.253 to 0.048 nats" in said["entropy_collapsed"][1]
    rising = [step | {"reward/exact": 0.3 + 0.01 * k} for k, step in enumerate(fallen)]
    assert told([*rising, *[rising[-1]] * 20]) == {}
    slower = [step | {"reward/exact": 0.3 + 0.005 * k} for k, step in enumerate([*fallen, *[fallen[-1]] * 20])]
    assert told(slower) == {}  # it is on its way


def test_length_running_away_but_not_where_it_pays():
    said = told(ramp("completion/tokens", 100, 400))
    assert list(said) == ["length_runaway"]
    assert "dr_grpo" in said["length_runaway"][1]
    pays = [step | {"reward/exact": 0.3 + 0.005 * k} for k, step in enumerate(ramp("completion/tokens", 100, 400))]
    assert told(pays) == {}
    # also long after the start, when accuracy has risen meanwhile
    assert list(told([*pays, *[s | {"reward/exact": 0.6} for s in ramp("completion/tokens", 400, 1600)]])) == [
        "length_runaway"
    ]


def test_reward_rising_while_held_out_accuracy_falls():
    rising = ramp("reward/mean", 0.3, 0.9)
    said = told(rising, {0: 0.5, 20: 0.52, 40: 0.48, 60: 0.3})
    assert list(said) == ["reward_without_accuracy"]
    step, text = said["reward_without_accuracy"]
    assert step == 60
    assert "from 0.50 (step 0) to 0.30" in text
    assert told(rising, {0: 0.5, 20: 0.52, 40: 0.50, 60: 0.48}) == {}  # within the noise
    assert told([LEARNING] * 60, {0: 0.5, 60: 0.3}) == {}  # no rise to wonder about


def test_sampler_and_trainer_apart():
    said = told([LEARNING | {"policy/logprob_mismatch": 0.3}] * 20)
    assert list(said) == ["sampler_mismatch"]
    assert "0.30 nats" in said["sampler_mismatch"][1]


def test_a_rate_without_effect_but_not_at_the_ends_of_a_schedule():
    still = [LEARNING | {"policy/learning_rate": 1e-9, "policy/moved_rms": 1e-9 * k} for k in range(30)]
    said = told(still)
    assert list(said) == ["rate_without_effect"]
    assert "1e-09" in said["rate_without_effect"][1]
    ended = [LEARNING | {"policy/learning_rate": 1e-9, "policy/moved_rms": 1e-3}] * 30
    assert told([*[LEARNING] * 20, *ended]) == {}
    warming = [LEARNING | {"policy/learning_rate": 1e-10 * k, "policy/moved_rms": 0.0} for k in range(30)]
    assert told(warming) == {}


def test_no_update_at_all_is_not_the_rates_fault():
    untrained = LEARNING | {"policy/moved_rms": 0.0, "policy/trained_tokens": 0.0}
    assert "rate_without_effect" not in told([untrained] * 30)


def test_a_window_set_anew_on_resuming_does_not_silence_the_rules():
    history = History(window=20)
    for _ in range(15):
        history.add({"reward/mean": 0.5})
    history.window = 5
    history.add({"reward/mean": 0.5})
    assert history.start["reward/mean"] == 0.5


def test_evaluations_of_another_suite_are_not_compared():
    history = History(window=2)
    for step, suite in enumerate(("greedy", "greedy", "sampled")):
        history.add({"reward/mean": 0.5})
        history.add_evaluation(step, suite, 0.5, 0.02)
    assert [each["suite"] for each in history.evaluations] == ["sampled"]
