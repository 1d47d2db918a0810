"""Worlds of 1, 2 and 4 ranks over torch.distributed: what one process does, whatever goes wrong on one rank."""

from __future__ import annotations

import numpy as np
import pytest

from rl_lightning.types import UserError
from tests.distributed.world_runs import SETTINGS, PerRank, WithFault, fit
from tests.distributed.worlds import Worlds

DECIDED = ("texts", "questions", "levels", "kept", "cursor", "success", "draws", "step", "interrupted")
"""What does not depend on the number of ranks by a single bit."""

ROUNDING = 2e-3
"""Of how far weights have moved: Adam makes steps of one size of gradients that rounding has turned round."""

PLAIN = {"prompts": 5}


@pytest.fixture(scope="module")
def worlds():
    worlds = Worlds()
    yield worlds
    worlds.close()


def distance(one, other) -> float:
    """Norm of the difference of the trained weights, relative to how far they have moved."""
    apart = sum(float(np.square(a - b).sum()) for a, b in zip(one["weights"], other["weights"], strict=True))
    return (apart / sum(float(np.square(moved).sum()) for moved in one["moved"])) ** 0.5


def alike(ranks: list, alone: dict) -> None:
    """All ranks have come to the same, bit for bit, and to what one process has come to, but for rounding."""
    for rank in ranks:
        assert isinstance(rank, dict), rank
        for name in DECIDED:
            assert rank[name] == alone[name], name
        assert all(np.array_equal(a, b) for a, b in zip(rank["weights"], ranks[0]["weights"], strict=True))
        assert distance(alone, rank) < ROUNDING
        assert rank["metrics"] == pytest.approx(alone["metrics"], rel=1e-3, abs=1e-6)


@pytest.fixture(scope="module")
def alone(worlds, tmp_path_factory):
    """Four plain steps of one process."""
    return worlds.run(1, fit, tmp_path_factory.mktemp("alone"), 4, PLAIN)[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_two_and_four_ranks_train_what_one_does(worlds, tmp_path, name):
    (alone,) = worlds.run(1, fit, tmp_path / "1", 7, SETTINGS[name])
    for ranks in (2, 4):
        alike(worlds.run(ranks, fit, tmp_path / str(ranks), 7, SETTINGS[name]), alone)
    if "curriculum" in name:
        assert len({level for step in alone["levels"] for level in step}) > 1, "the curriculum has moved"
        assert 0 < alone["metrics"]["completion/truncated"] < 1
    if "dynamic" in name:
        assert any(len(kept) > sum(kept) for kept in alone["kept"]), "groups were left out"
        assert any(len(kept) % 4 for kept in alone["kept"]), "fewer extra prompts than four ranks"


def test_a_mean_of_the_ranks_means_would_be_seen(worlds, tmp_path, alone):
    found = worlds.run(2, fit, tmp_path, 4, PLAIN, PerRank)
    with pytest.raises(AssertionError):
        alike(found, alone)
    assert distance(alone, found[0]) > 10 * ROUNDING


@pytest.mark.parametrize(
    "fault", ["no memory for the update", "no memory for a rollout", "a lost worker", "not finite"]
)
def test_what_goes_wrong_on_one_rank_does_not_hang_or_change_the_others(worlds, tmp_path, alone, fault):
    if fault == "not finite":  # as in one process: the update is skipped
        (alone,) = worlds.run(1, fit, tmp_path / "1", 4, PLAIN, WithFault, None, fault, True)
    found = worlds.run(2, fit, tmp_path / "2", 4, PLAIN, WithFault, None, fault)
    alike(found, alone)
    first, last = (rank["limits"] for rank in found)
    halved = [int("update" in fault), int("rollout" in fault)]
    assert last == [limit >> by for limit, by in zip(first, halved, strict=True)], "only that rank's limit is lower"


def test_a_signal_to_one_rank_ends_all_after_the_same_step(worlds, tmp_path, alone):
    found = worlds.run(2, fit, tmp_path, 4, PLAIN, WithFault, None, "signal")
    for rank in found:
        assert (rank["step"], rank["interrupted"]) == (2, True)
        assert rank["texts"] == alone["texts"][:2]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2"]
    alike(worlds.run(2, fit, tmp_path, 4, PLAIN, resume=2), {**alone, **_rest(alone, 2)})


def test_rank_0_makes_the_problems_of_all(worlds, tmp_path):
    settings = SETTINGS["grpo, 4 bits, dynamic sampling"]
    (alone,) = worlds.run(1, fit, tmp_path / "1", 3, settings)
    alike(worlds.run(2, fit, tmp_path / "2", 3, settings, WithFault, None, "makes no problems"), alone)


def test_a_gradient_that_stays_not_finite_on_one_rank_ends_all_with_one_file(worlds, tmp_path):
    found = worlds.run(2, fit, tmp_path, 5, PLAIN, WithFault, None, "never finite")
    (file,) = tmp_path.glob("not_finite_step_*.pt")
    for error in found:
        assert isinstance(error, UserError)
        assert f"the last batch is in {file}" in str(error)


def test_ranks_of_other_settings_do_not_train_together(worlds, tmp_path):
    found = worlds.run(2, fit, tmp_path, 2, PLAIN, WithFault, None, "another learning rate")
    assert all("learning_rate on rank 1: '0.002' is not allowed; it must be 0.001" in str(error) for error in found)


def test_an_error_in_the_last_evaluation_of_one_rank_ends_all(worlds, tmp_path):
    first, last = worlds.run(2, fit, tmp_path, 2, PLAIN, WithFault, None, "raises in the last evaluation")
    assert "no evaluation today" in str(last)
    assert "another rank has ended" in str(first)


def test_an_error_on_one_rank_ends_all(worlds, tmp_path):
    first, last = worlds.run(2, fit, tmp_path, 4, PLAIN, WithFault, None, "raises")
    assert isinstance(last, RuntimeError)
    assert "no reward today" in str(last)
    assert isinstance(first, UserError)
    assert "another rank has ended" in str(first)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (4, 1)])
def test_a_run_resumes_with_another_number_of_ranks(worlds, tmp_path, alone, before, after):
    worlds.run(before, fit, tmp_path, 2, PLAIN)
    found = worlds.run(after, fit, tmp_path, 4, PLAIN, resume=2)
    alike(found, {**alone, **_rest(alone, 2)})


def _rest(run: dict, step: int) -> dict:
    """What is kept by step, of the steps after this one."""
    return {name: run[name][step:] for name in ("texts", "questions", "levels", "kept")}
