"""Which rollouts a table shows; tests/test_loggers.py reads the tables back from real loggers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rl_lightning.callbacks import rollout_table
from rl_lightning.callbacks.rollout_table import RolloutTable


def row(task: str, exact: bool, reward: float, tokens: int) -> dict:
    text = f"{task} {reward} {tokens}"
    shown = {"task": task, "exact": exact, "reward": reward, "tokens": tokens, "completion": text}
    return {**dict.fromkeys(rollout_table.COLUMNS[3:], ""), **shown}


@pytest.fixture
def tables(monkeypatch):
    """What would go to a logger, by step."""
    found: dict[int, list[tuple]] = {}
    monkeypatch.setattr(rollout_table, "rollout_rows", lambda record: record)
    monkeypatch.setattr(rollout_table, "_solved", lambda record: {r["task"] for r in record if r["exact"]})
    monkeypatch.setattr(
        rollout_table,
        "_log_table",
        lambda logger, rows, step: found.update({step: [(r["why"], r["step"], r["completion"]) for r in rows]}),
    )
    return found


def play(callback: RolloutTable, steps: dict[int, list[dict]]) -> None:
    for step, rows in steps.items():
        trainer = SimpleNamespace(global_step=step - 1, loggers=[None], is_global_zero=True)
        callback.on_train_batch_start(trainer, None, None, 0)
        trainer.global_step = step
        callback.on_train_batch_end(trainer, None, {"record": rows}, None, 0)


STEPS = {
    1: [row("sums", False, 0.0, 9), row("sums", False, 0.1, 3)],
    2: [row("sums", True, 1.0, 5), row("sums", True, 1.1, 6), row("words", False, 0.1, 9)],
    3: [row("sums", True, 1.0, 4), row("words", False, 0.0, 12)],
    4: [row("words", True, 0.9, 4), row("words", False, 0.1, 2)],
}


def test_best_worst_longest_and_the_first_right_answer_of_each_task_once(tables):
    play(RolloutTable(table_steps=3), STEPS | {6: [row("sums", True, 1.0, 1)]})
    assert tables == {
        3: [
            ("best", 3, "sums 1.0 4"),
            ("worst", 3, "words 0.0 12"),
            ("longest", 3, "words 0.0 12"),
            ("first right answer", 2, "sums 1.0 5"),
        ],
        6: [
            *((why, 6, "sums 1.0 1") for why in ("best", "worst", "longest")),
            ("first right answer", 4, "words 0.9 4"),
        ],
    }


def test_a_resumed_run_does_not_forget_what_was_solved(tables):
    whole = RolloutTable(table_steps=4)
    play(whole, STEPS)
    expected = tables.pop(4)
    half, rest = RolloutTable(table_steps=4), RolloutTable(table_steps=4)
    play(half, {step: STEPS[step] for step in (1, 2)})
    rest.load_state_dict(half.state_dict())
    play(rest, {step: STEPS[step] for step in (3, 4)})
    assert tables == {4: expected}
