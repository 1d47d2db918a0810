"""A learner on a ladder: what it is asked follows what it got right, a fixed number of slots later."""

from __future__ import annotations

from collections import Counter

import pytest

from rl_lightning.curriculum import Course, Curriculum, Plan, SuccessRecord
from rl_lightning.types import Problem, UserError

SEED, LAG = 3, 8


def course(levels=6, **settings) -> Course:
    return Course(Curriculum(**{"window": 4, "rehearsal": 0.0} | settings), {"a": levels}, {"a": 1.0, "b": 1.0})


def group(level, success, task="a") -> tuple[Problem, float]:
    return Problem(task, 0, "?", {}, level), success


def test_a_move_holds_from_the_lag_on_and_not_before():
    way = course()
    before = [way.plan.draw(SEED, slot) for slot in range(LAG)]
    way.learn([group(0, 1.0)] * 4, cursor=2, lag=LAG)
    assert way.levels == {"a": 1}
    assert [way.plan.draw(SEED, slot) for slot in range(LAG)] == before
    assert {way.plan.draw(SEED, slot) for slot in range(LAG + 2)} == {("a", 0), ("b", None)}
    assert {way.plan.draw(SEED, slot) for slot in range(LAG + 2, 40)} == {("a", 1), ("b", None)}


def test_after_a_move_only_groups_at_the_new_level_count():
    """Without that, one lucky window would carry the learner to the top."""
    way = course()
    way.learn([group(0, 1.0)] * 4, 2, LAG)
    way.learn([group(0, 1.0)] * 40, 4, LAG)  # drawn before the move
    assert way.levels == {"a": 1}
    way.learn([group(1, 0.0)] * 3 + [group(0, 1.0)] * 9, 6, LAG)
    assert way.levels == {"a": 1}
    assert way.figures() == {"a": (1, 0.0)}
    way.learn([group(1, 0.0)], 8, LAG)
    assert way.levels == {"a": 0}
    assert way.figures() == {"a": (0, None)}


def test_rehearsals_are_drawn_evenly_from_the_levels_below():
    plan = Plan({"a": 4}, {"a": 1.0}, rehearsal=0.25)
    counts = Counter(plan.draw(SEED, slot)[1] for slot in range(8000))
    assert set(counts) == {0, 1, 2, 3, 4}
    assert counts[4] / 8000 == pytest.approx(0.75, abs=0.02)
    for level in range(4):
        assert counts[level] / 8000 == pytest.approx(0.25 / 4, abs=0.012)
    ground = Plan({"a": 0}, {"a": 1.0}, rehearsal=0.25)
    assert {ground.draw(SEED, slot) for slot in range(99)} == {("a", 0)}


def test_prompts_go_where_success_moves():
    way = Course(Curriculum(follow_progress=True), {}, {"a": 1.0, "b": 1.0})
    for number in range(80):
        way.learn([group(None, 0.5), group(None, float(number > 60), "b")], 2 * number + 2, LAG)
    assert way.plan.turns[-1].weights == pytest.approx({"a": 0.25, "b": 0.75})
    counts = Counter(way.plan.draw(SEED, slot)[0] for slot in range(170, 2170))
    assert counts["b"] / 2000 == pytest.approx(0.75, abs=0.04)


def test_a_task_that_climbs_moves_though_it_is_as_right_as_before():
    way = Course(Curriculum(window=4, follow_progress=True, rehearsal=0.0), {"a": 40}, {"a": 1.0, "b": 1.0})
    for step in range(60):
        way.learn([group(way.levels["a"], 0.9), group(None, 0.5, "b")], 2 * step + 2, LAG)
    assert way.levels["a"] == 15
    assert way.plan.turns[-1].weights == pytest.approx({"a": 0.75, "b": 0.25})


def test_turns_behind_are_forgotten_and_the_one_that_holds_is_kept():
    way = course(window=1, high=0.5)
    for step in range(1, 7):
        way.learn([group(way.levels["a"], 1.0 if step % 2 else 0.0)], cursor=2 * step, lag=LAG)
    assert [turn.slot for turn in way.plan.turns] == [12, 14, 16, 18, 20]
    assert way.plan.draw(SEED, 12)  # the next slot


def test_a_course_that_is_taken_up_again_goes_on_the_same():
    seen = set()

    def learn(way, record, steps):
        for step in steps:
            outcomes = [
                (Problem(task, 0, "?", {}, level), (step * 7 % 10) / 9)
                for task, level in (way.plan.draw(SEED, slot) for slot in range(2 * step - 2, 2 * step))
            ]
            for problem, success in outcomes:
                record.add(problem.task, problem.level, success)
            way.learn(outcomes, 2 * step, LAG)
            seen.add(way.levels["a"])

    settings = {"window": 2, "follow_progress": True, "rehearsal": 0.3}
    whole, record = course(**settings), SuccessRecord()
    learn(whole, record, range(1, 40))
    first, early = course(**settings), SuccessRecord()
    learn(first, early, range(1, 17))
    second, late = course(**settings), SuccessRecord()
    second.restore(first.state())
    late.restore(early.state())
    learn(second, late, range(17, 40))
    assert second.state() == whole.state()
    assert late.state() == record.state()
    assert len(seen) > 1  # it does move


def test_a_plan_for_what_was_drawn_already_is_a_mistake():
    way = course()
    way.plan.draw(SEED, 10)
    with pytest.raises(RuntimeError, match="slot 10 was drawn before the plan for slot 10"):
        way.learn([group(0, 1.0)] * 4, cursor=2, lag=LAG)


def test_a_level_that_is_not_there_is_no_start():
    with pytest.raises(UserError, match=r"data.curriculum.start: 6 is not allowed; the levels of a are 0 to 5"):
        course(start=6).refuse_missing_levels()
    course(start=5).refuse_missing_levels()


def test_the_record_is_a_mean_first_and_then_forgets():
    record = SuccessRecord()
    for success in (1.0, 0.0, 0.5):
        record.add("a", 2, success)
    assert record["a", 2].groups == 3
    assert record["a", 2].lately == record["a", 2].long == pytest.approx(0.5)
    assert record["a", 1].groups == 0
    for _ in range(300):
        record.add("a", 2, 1.0)
    assert 0.98 < record["a", 2].long < record["a", 2].lately <= 1
