"""Warn, once for each reason, when a run does not learn: too hard, too easy, collapsed entropy, and so on."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from rl_lightning.callbacks.fixed_eval import latest_evaluation
from rl_lightning.checkpointing.atomic_files import newest, write_atomically
from rl_lightning.training import StepCallback
from rl_lightning.training.diagnostics import RULES, History
from rl_lightning.types import StepRecord, require

log = logging.getLogger(__name__)

FILE = "warnings.jsonl"


class Diagnostics(StepCallback):
    """Say why a run does not learn, with the metric that shows it and the setting to change.

    On the console and as a line (step, name, text) of `warnings.jsonl` in the trainer's `default_root_dir`; each of
    `rl_lightning.training.diagnostics.RULES` at most once per run, resumed or not. Uses the metrics of GroupVariance and the
    evaluations of FixedEval if those callbacks are there. Logs `policy/moved_rms`.

    Args:
        window: number of rollouts that a metric is averaged over; no warning is given before that many. At least 2.
    """

    def __init__(self, window: int = 20) -> None:
        require("Diagnostics.window", window, window >= 2, "at least 2")
        self.window = window
        self._history = History(window)
        self._said: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the metrics seen so far, and the warnings given."""
        return {"history": asdict(self._history), "said": self._said}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self._history = History(**{**state_dict["history"], "window": self.window})  # which may have been changed since
        self._said = state_dict["said"]

    def step_metrics(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> dict[str, float]:
        """See the class."""
        return {"policy/moved_rms": pl_module.policy.moved_rms()}

    def on_step_end(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        """Apply the rules to the last steps and evaluations, and warn."""
        history, step = self._history, record.step
        metrics = pl_module.metrics | {"left": 1 - step / trainer.max_steps if trainer.max_steps > 0 else 1.0}
        tasks = {problem.task for problem in record.rollouts.prompts.problems}
        if (
            len(tasks) == 1 and "groups/zero_variance_wrong" in metrics
        ):  # with a single task there are no metrics per task
            metrics[f"groups/{tasks.pop()}/zero_variance_wrong"] = metrics["groups/zero_variance_wrong"]
        if not record.supervised:  # those steps need no variance, and their samples are those of other prompts
            history.add(metrics)
        latest = latest_evaluation(trainer)
        if latest and latest["step"] not in {evaluation["step"] for evaluation in history.evaluations}:
            overall = latest["overall"]
            history.add_evaluation(latest["step"], latest["suite"], overall["accuracy"], overall["standard_error"])
        for rule in RULES if history.start and not record.supervised else ():
            if rule.__name__ not in self._said and (text := rule(history)) is not None:
                self._said.append(rule.__name__)
                if pl_module.collective.rank == 0:
                    _say(trainer, step, rule.__name__, text)


def forget_warnings_after(root: Path, step: int) -> None:
    """Delete the warnings after `step`, which a run resumed there will give again."""
    path = root / FILE
    if path.is_file():
        lines = newest(path).read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomically(path, "".join(line for line in lines if json.loads(line)["step"] <= step))


def _say(trainer: Trainer, step: int, name: str, text: str) -> None:
    bar: Any = trainer.progress_bar_callback
    if bar is not None:
        bar.print(f"step {step}: {text}")
    else:
        log.warning(f"step {step}: {text}")
    path = Path(trainer.default_root_dir) / FILE
    before = newest(path).read_text(encoding="utf-8") if path.is_file() else ""
    write_atomically(path, before + json.dumps({"step": step, "name": name, "text": text}, ensure_ascii=False) + "\n")
