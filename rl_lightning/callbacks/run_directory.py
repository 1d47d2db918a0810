"""Keep one run per directory: refuse to overwrite an earlier run, and write the final results."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from rl_lightning.callbacks.diagnostics import forget_warnings_after
from rl_lightning.callbacks.fixed_eval import final_evaluation
from rl_lightning.callbacks.python_config import write_config
from rl_lightning.checkpointing.atomic_files import place_left, write_json
from rl_lightning.checkpointing.checkpoints import checkpoint_step, checkpoints, damage
from rl_lightning.checkpointing.run_lock import RunLock
from rl_lightning.loggers.metrics_csv import MetricsCSV
from rl_lightning.loggers.rollout_files import drop_steps_after
from rl_lightning.types import UserError

_LEFT_BY_A_RUN = (
    "config.yaml",
    "eval_results/eval_step_*.json",
    "rollouts",
    "checkpoint-*",
    "train_results.json",
    "metrics.csv",
    "warnings.jsonl",
)

_EVALUATION = re.compile(r"eval_step_(\d+)\.json")


class RunDirectory(Callback):
    """Refuse a `default_root_dir` that holds another run, unless that run is being resumed, or in which another process is
    training. Write its `metrics.csv`, whatever other loggers there are, its `config.yaml` where the command line does not, and at
    the end the results in `train_results.json`.

    Args:
        start_again: the directory holds a run that was killed before its first checkpoint; start it again there.

    Raises:
        UserError: at the start of `fit`, if the directory holds another run, is in use, or cannot be written.
    """

    def __init__(self, start_again: bool = False) -> None:
        self.start_again = start_again
        self._seconds_before, self._lock = 0.0, RunLock()
        self._added: MetricsCSV | None = None
        self._began = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return how many seconds the run has taken so far."""
        return {"seconds": time.monotonic() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self._seconds_before = state_dict["seconds"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add the logger of `metrics.csv`, until `fit` ends."""
        trying = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        if stage == "fit" and not trying and not any(isinstance(logger, MetricsCSV) for logger in trainer.loggers):
            self._added = MetricsCSV(str(trainer.default_root_dir))
            trainer.loggers = [*trainer.loggers, self._added]

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.collective.broadcast(
            lambda: self._begin(trainer, Path(trainer.default_root_dir), pl_module.loaded_step)
        )

    def _begin(self, trainer: Trainer, root: Path, step: int) -> None:
        self._lock.take(root)
        if step == 0 and not self.start_again and trainer.ckpt_path is None:
            refuse_taken(root)
        newer = [p.name for p in checkpoints(root) if checkpoint_step(p) > step and damage(p) is None]
        if newer:
            raise UserError(
                f"ckpt_path: {root} holds {newer[-1]}, newer than step {step}; a run resumed at that step would overwrite it; "
                "resume from the newest (--ckpt_path last), or name another --trainer.default_root_dir"
            )
        place_left(root)
        _forget_after(trainer, root, step if step else -1)  # the evaluation at step 0 is done again too

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._began = time.monotonic() - self._seconds_before
        self._first_step = trainer.global_step
        if not trainer.fast_dev_run and not any(isinstance(each, SaveConfigCallback) for each in trainer.callbacks):  # type: ignore[attr-defined]
            file, resumed = Path(trainer.default_root_dir) / "config.yaml", pl_module.loaded_step > 0
            pl_module.collective.broadcast(lambda: write_config(trainer, pl_module, file, resumed))

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        evaluation = final_evaluation(trainer, pl_module)
        if pl_module.interrupted or pl_module.collective.rank != 0:
            return
        results: dict[str, Any] = {
            "step": trainer.global_step,
            "prompts": trainer.datamodule.cursor,  # type: ignore[attr-defined]
            "resumed_at_step": self._first_step,
            "seconds": time.monotonic() - self._began,
            "metrics": {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if math.isfinite(v)},
        }
        if evaluation is not None:
            results["eval"] = evaluation
        write_json(Path(trainer.default_root_dir) / "train_results.json", results)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._leave(trainer)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self._leave(trainer)

    def _leave(self, trainer: Trainer) -> None:
        """Release the directory; `metrics.csv` has what `fit` logs, nothing that the trainer does later."""
        self._lock.release()
        trainer.loggers = [logger for logger in trainer.loggers if logger is not self._added]
        self._added = None


def _forget_after(trainer: Trainer, root: Path, step: int) -> None:
    """Delete what a killed run wrote after its last checkpoint; the resumed run makes it again, the same."""
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCSV):
            logger.resume_after(step)
    drop_steps_after(root / "rollouts", step)
    forget_warnings_after(root, step)
    (root / "train_results.json").unlink(missing_ok=True)  # the run continues, so these are no longer its final results
    for path in root.glob("eval_results/*"):
        if (found := _EVALUATION.fullmatch(path.name)) and int(found[1]) > step:
            path.unlink()


def refuse_taken(root: Path) -> None:
    """Refuse a directory that holds a run.

    Raises:
        UserError: it names a file that was found, and what can be done.
    """
    for path in _left_by_a_run(root):
        raise UserError(
            f"trainer.default_root_dir: {root} holds a run already ({path.name}); resume it by --ckpt_path last, or "
            "name another directory by --trainer.default_root_dir"
        )


def is_taken(root: Path) -> bool:
    """Whether the directory holds a run."""
    return any(True for _ in _left_by_a_run(root))


def _left_by_a_run(root: Path) -> Iterator[Path]:
    return (path for pattern in _LEFT_BY_A_RUN for path in root.glob(pattern))
