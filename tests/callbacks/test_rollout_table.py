"""Which rollouts a table shows; tests/loggers/test_loggers.py reads the tables back from real loggers."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from lightning.pytorch.loggers import WandbLogger

from rl_lightning.callbacks import RolloutTable
from rl_lightning.types import Problem, PromptBatch, Rollout, RolloutBatch, Score, StepRecord, TrainerLogprobs

Row = tuple[str, bool, float, int]
"""A completion's task, whether it is right, its reward and its tokens."""


class Kept(WandbLogger):
    """A logger that keeps what it is given, by step: why a row was chosen, its step and its completion."""

    def __init__(self) -> None:
        self.tables: dict[int, list[tuple]] = {}

    def log_table(self, key, columns=None, data=None, step=None):
        rows = [dict(zip(columns, row, strict=True)) for row in data]
        self.tables[step] = [(row["why"], row["step"], row["completion"]) for row in rows]


def record(step: int, rows: list[Row]) -> StepRecord:
    """A step of one completion a prompt."""
    n, lengths = len(rows), torch.tensor([tokens for *_, tokens in rows])
    problems = tuple(Problem("?", task=task) for task, *_ in rows)
    prompts = PromptBatch(problems, torch.ones(n, 1, dtype=torch.int64), torch.ones(n, dtype=torch.int64), cursor=n)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    texts = tuple(f"{task} {reward} {tokens}" for task, _, reward, tokens in rows)
    rollout = Rollout(
        prompts.prompt_ids,
        prompts.prompt_lengths,
        mask.long(),
        mask,
        mask.float(),
        torch.ones(n, dtype=torch.bool),
        texts,
    )
    scores = tuple(Score(float(right), float(right), True, "x") for _, right, *_ in rows)
    rewards = torch.tensor([[reward] for _, _, reward, _ in rows], dtype=torch.float64)
    rollouts = RolloutBatch(prompts, rollout, scores, rewards[..., None], rewards, torch.ones(n, dtype=torch.bool))
    trainer = TrainerLogprobs.empty(rollout)
    return StepRecord(step, rollouts, torch.zeros(n, 1), mask.float(), trainer, {"sample": 1.0})


def play(callback: RolloutTable, logger: Kept, steps: dict[int, list[Row]]) -> None:
    module = SimpleNamespace(collective=SimpleNamespace(rank=0))
    for step, rows in steps.items():
        trainer = SimpleNamespace(global_step=step - 1, loggers=[logger])
        callback.on_train_batch_start(trainer, module, None, 0)
        trainer.global_step = step
        callback.on_step(trainer, module, record(step, rows))


STEPS: dict[int, list[Row]] = {
    1: [("sums", False, 0.0, 9), ("sums", False, 0.1, 3)],
    2: [("sums", True, 1.0, 5), ("sums", True, 1.1, 6), ("words", False, 0.1, 9)],
    3: [("sums", True, 1.0, 4), ("words", False, 0.0, 12)],
    4: [("words", True, 0.9, 4), ("words", False, 0.1, 2)],
}


def test_best_worst_longest_and_the_first_right_answer_of_each_task_once():
    play(RolloutTable(table_steps=3), logger := Kept(), STEPS | {6: [("sums", True, 1.0, 1)]})
    assert logger.tables == {
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


def test_a_resumed_run_does_not_forget_what_was_solved():
    play(RolloutTable(table_steps=4), whole := Kept(), STEPS)
    half, rest = RolloutTable(table_steps=4), RolloutTable(table_steps=4)
    play(half, Kept(), {step: STEPS[step] for step in (1, 2)})
    rest.load_state_dict(half.state_dict())
    play(rest, resumed := Kept(), {step: STEPS[step] for step in (3, 4)})
    assert resumed.tables == whole.tables
    assert set(whole.tables) == {4}


def test_only_the_first_rank_logs():
    callback, logger = RolloutTable(table_steps=1), Kept()
    module = SimpleNamespace(collective=SimpleNamespace(rank=1))
    trainer = SimpleNamespace(global_step=0, loggers=[logger])
    callback.on_train_batch_start(trainer, module, None, 0)
    callback.on_step(trainer, module, record(1, STEPS[1]))
    assert logger.tables == {}
