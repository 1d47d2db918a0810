"""Levels that follow the learner: what it is asked follows what it got right, a fixed number of slots later."""

from __future__ import annotations

from collections import Counter

import pytest

from rl_lightning.curriculum import Curriculum, CurriculumScheduler, LevelSchedule, SuccessRecord
from rl_lightning.types import Problem, UserError

SEED, LAG = 3, 8


def scheduler_of(levels=6, **settings) -> CurriculumScheduler:
    return CurriculumScheduler(
        Curriculum(**{"window": 4, "rehearsal": 0.0} | settings), {"a": levels}, {"a": 1.0, "b": 1.0}
    )


def group(level, success, task="a") -> tuple[Problem, float]:
    return Problem("?", task=task, level=level), success


def test_a_move_holds_from_the_lag_on_and_not_before():
    scheduler = scheduler_of()
    before = [scheduler.schedule.draw(SEED, slot) for slot in range(LAG)]
    scheduler.update([group(0, 1.0)] * 4, cursor=2, lag=LAG)
    assert scheduler.levels == {"a": 1}
    assert [scheduler.schedule.draw(SEED, slot) for slot in range(LAG)] == before
    assert {scheduler.schedule.draw(SEED, slot) for slot in range(LAG + 2)} == {("a", 0), ("b", None)}
    assert {scheduler.schedule.draw(SEED, slot) for slot in range(LAG + 2, 40)} == {("a", 1), ("b", None)}


def test_after_a_move_only_groups_at_the_new_level_count():
    """Without that, one lucky window would carry the learner to the top."""
    scheduler = scheduler_of()
    scheduler.update([group(0, 1.0)] * 4, 2, LAG)
    scheduler.update([group(0, 1.0)] * 40, 4, LAG)  # drawn before the move
    assert scheduler.levels == {"a": 1}
    scheduler.update([group(1, 0.0)] * 3 + [group(0, 1.0)] * 9, 6, LAG)
    assert scheduler.levels == {"a": 1}
    assert scheduler.metrics() == {"a": (1, 0.0)}
    scheduler.update([group(1, 0.0)], 8, LAG)
    assert scheduler.levels == {"a": 0}
    assert scheduler.metrics() == {"a": (0, None)}


def test_rehearsals_are_drawn_evenly_from_the_levels_below():
    schedule = LevelSchedule({"a": 4}, {"a": 1.0}, rehearsal=0.25)
    counts = Counter(schedule.draw(SEED, slot)[1] for slot in range(8000))
    assert set(counts) == {0, 1, 2, 3, 4}
    assert counts[4] / 8000 == pytest.approx(0.75, abs=0.02)
    for level in range(4):
        assert counts[level] / 8000 == pytest.approx(0.25 / 4, abs=0.012)
    lowest = LevelSchedule({"a": 0}, {"a": 1.0}, rehearsal=0.25)
    assert {lowest.draw(SEED, slot) for slot in range(99)} == {("a", 0)}


def test_prompts_go_where_success_moves():
    scheduler = CurriculumScheduler(Curriculum(follow_progress=True), {}, {"a": 1.0, "b": 1.0})
    for number in range(80):
        scheduler.update([group(None, 0.5), group(None, float(number > 60), "b")], 2 * number + 2, LAG)
    assert scheduler.schedule.segments[-1].weights == pytest.approx({"a": 0.25, "b": 0.75})
    counts = Counter(scheduler.schedule.draw(SEED, slot)[0] for slot in range(170, 2170))
    assert counts["b"] / 2000 == pytest.approx(0.75, abs=0.04)


def test_a_task_whose_level_rises_moves_though_it_is_as_right_as_before():
    scheduler = CurriculumScheduler(
        Curriculum(window=4, follow_progress=True, rehearsal=0.0), {"a": 40}, {"a": 1.0, "b": 1.0}
    )
    for step in range(60):
        scheduler.update([group(scheduler.levels["a"], 0.9), group(None, 0.5, "b")], 2 * step + 2, LAG)
    assert scheduler.levels["a"] == 15
    assert scheduler.schedule.segments[-1].weights == pytest.approx({"a": 0.75, "b": 0.25})


def test_segments_behind_are_forgotten_and_the_one_that_holds_is_kept():
    scheduler = scheduler_of(window=1, high=0.5)
    for step in range(1, 7):
        scheduler.update([group(scheduler.levels["a"], 1.0 if step % 2 else 0.0)], cursor=2 * step, lag=LAG)
    assert [segment.slot for segment in scheduler.schedule.segments] == [12, 14, 16, 18, 20]
    assert scheduler.schedule.draw(SEED, 12)  # the next slot


def test_a_scheduler_that_is_restored_goes_on_the_same():
    seen = set()

    def learn(scheduler, record, steps):
        for step in steps:
            accuracies = [
                (Problem("?", task=task, level=level), (step * 7 % 10) / 9)
                for task, level in (scheduler.schedule.draw(SEED, slot) for slot in range(2 * step - 2, 2 * step))
            ]
            for problem, success in accuracies:
                record.add(problem.task, problem.level, success)
            scheduler.update(accuracies, 2 * step, LAG)
            seen.add(scheduler.levels["a"])

    settings = {"window": 2, "follow_progress": True, "rehearsal": 0.3}
    whole, record = scheduler_of(**settings), SuccessRecord()
    learn(whole, record, range(1, 40))
    first, early = scheduler_of(**settings), SuccessRecord()
    learn(first, early, range(1, 17))
    second, late = scheduler_of(**settings), SuccessRecord()
    second.restore(first.state())
    late.restore(early.state())
    learn(second, late, range(17, 40))
    assert second.state() == whole.state()
    assert late.state() == record.state()
    assert len(seen) > 1  # it does move


def test_a_schedule_for_what_was_drawn_already_is_a_mistake():
    scheduler = scheduler_of()
    scheduler.schedule.draw(SEED, 10)
    with pytest.raises(RuntimeError, match="slot 10 was drawn before the levels for slot 10"):
        scheduler.update([group(0, 1.0)] * 4, cursor=2, lag=LAG)


def test_a_level_that_is_not_there_is_no_start():
    with pytest.raises(UserError, match=r"data.curriculum.start: 6 is not allowed; the levels of a are 0 to 5"):
        scheduler_of(start=6).refuse_missing_levels()
    scheduler_of(start=5).refuse_missing_levels()


def test_the_record_is_a_mean_first_and_then_forgets():
    record = SuccessRecord()
    for success in (1.0, 0.0, 0.5):
        record.add("a", 2, success)
    assert record["a", 2].groups == 3
    assert record["a", 2].recent == record["a", 2].long == pytest.approx(0.5)
    assert record["a", 1].groups == 0
    for _ in range(300):
        record.add("a", 2, 1.0)
    assert 0.98 < record["a", 2].long < record["a", 2].recent <= 1
