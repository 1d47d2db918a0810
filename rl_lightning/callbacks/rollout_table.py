"""Log a table of a few rollouts worth reading to the loggers that can show tables."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from rl_lightning.callbacks.rollout_log import rollout_rows
from rl_lightning.training import StepCallback
from rl_lightning.types import StepRecord, require

Row = dict[str, Any]

COLUMNS = ("step", "why", "task", "prompt", "completion", "answer", "expected", "exact", "reward", "tokens", "finish")


class RolloutTable(StepCallback):
    """Every `table_steps` log a table `rollouts`: the step's best, worst and longest completion, and for each task that was solved
    for the first time since the last table that first right answer. wandb and MLflow show tables; other loggers get none.

    Args:
        table_steps: optimizer steps between tables; at least 1.
    """

    def __init__(self, table_steps: int = 50) -> None:
        require("RolloutTable.table_steps", table_steps, table_steps >= 1, "at least 1")
        self.table_steps = table_steps
        self._solved: set[str] = set()
        self._first_right: list[Row] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the tasks that were solved so far, and the first right answers that no table has shown yet."""
        return {"solved": sorted(self._solved), "first_right": self._first_right}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self._solved, self._first_right = set(state_dict["solved"]), state_dict["first_right"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._step_before = trainer.global_step

    def on_step(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        """Log a table if one is due, and remember first right answers."""
        step = record.step
        due = step // self.table_steps > self._step_before // self.table_steps
        newly_solved = _solved(record) - self._solved
        if not (due or newly_solved):
            return
        rows = [{"step": step, **row} for row in rollout_rows(record)]
        self._solved |= newly_solved
        for task in sorted(newly_solved):
            first = next(row for row in rows if row["task"] == task and row["exact"])
            self._first_right.append(_shown(first, "first right answer"))
        if due:
            chosen, self._first_right = [*_extremes(rows), *self._first_right], []
            for logger in trainer.loggers if pl_module.collective.rank == 0 else []:
                _log_table(logger, chosen, step)


def _solved(record: StepRecord) -> set[str]:
    """Return the tasks with a right answer in this step."""
    problems, size = record.rollouts.prompts.problems, record.rollouts.rollout.group_size
    return {problems[n // size].task for n, score in enumerate(record.rollouts.scores) if score.exact == 1}


def _extremes(rows: list[Row]) -> list[Row]:
    best, worst = max(rows, key=lambda row: row["reward"]), min(rows, key=lambda row: row["reward"])
    longest = max(rows, key=lambda row: row["tokens"])
    return [_shown(best, "best"), _shown(worst, "worst"), _shown(longest, "longest")]


def _shown(row: Row, why: str) -> Row:
    return {name: why if name == "why" else row[name] for name in COLUMNS}


def _log_table(logger: Logger, rows: list[Row], step: int) -> None:
    if isinstance(logger, WandbLogger):
        logger.log_table("rollouts", list(COLUMNS), [list(row.values()) for row in rows], step=step)
    elif isinstance(logger, MLFlowLogger):
        columns = {name: [row[name] for row in rows] for name in COLUMNS}
        logger.experiment.log_table(logger.run_id, columns, "rollouts.json")  # appends to the table of earlier steps
