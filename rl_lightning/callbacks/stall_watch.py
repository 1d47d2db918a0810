"""Why does it not learn? Watch for what stalls GRPO, and say each once."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from rl_lightning.callbacks.fixed_eval import FixedEval
from rl_lightning.stalls import RULES, History
from rl_lightning.types import require
from rl_lightning.whole_files import write_whole

log = logging.getLogger(__name__)

FILE = "warnings.jsonl"


class StallWatch(Callback):
    """Say what stalls the run, with the figure and the knob, on the console and as a line of `warnings.jsonl` (step, name, text)
    in the trainer's `default_root_dir`; each of `rl_lightning.stalls.RULES` at most once a run, also where it is resumed. Logs
    `policy/adapter_rms`. Put it after GroupVariance and FixedEval, whose figures it reads.

    Args:
        window: steps that a figure is averaged over, and before which nothing is said; at least 2.
    """

    def __init__(self, window: int = 20) -> None:
        require("StallWatch.window", window, window >= 2, "at least 2")
        self.window = window
        self._history = History(window)
        self._said: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """What was seen and said."""
        return {"history": asdict(self._history), "said": self._said}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it over."""
        self._history = History(**{**state_dict["history"], "window": self.window})  # which may have been set anew
        self._said = state_dict["said"]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        history, step = self._history, trainer.global_step
        pl_module.report({"policy/adapter_rms": pl_module.policy.adapter_rms()})
        figures = pl_module.metrics | {"left": 1 - step / trainer.max_steps if trainer.max_steps > 0 else 1.0}
        tasks = {problem.task for problem in outputs["record"].groups.batch.problems}
        if (
            len(tasks) == 1 and "groups/dead_wrong" in figures
        ):  # where there is one task only, it has no figure of its own
            figures[f"groups/{tasks.pop()}/dead_wrong"] = figures["groups/dead_wrong"]
        history.add(figures)
        latest = next((c.latest for c in trainer.callbacks if isinstance(c, FixedEval)), None)  # type: ignore[attr-defined]
        if latest and latest["step"] not in {evaluation["step"] for evaluation in history.evaluations}:
            overall = latest["overall"]
            history.add_evaluation(latest["step"], latest["suite"], overall["accuracy"], overall["standard_error"])
        for rule in RULES if history.start else ():
            if rule.__name__ not in self._said and (text := rule(history)) is not None:
                self._said.append(rule.__name__)
                _say(trainer, step, rule.__name__, text)


def forget_warnings_after(root: Path, step: int) -> None:
    """Drop what a run that goes on from `step` will say again."""
    path = root / FILE
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_whole(path, "".join(line for line in lines if json.loads(line)["step"] <= step))


def _say(trainer: Trainer, step: int, name: str, text: str) -> None:
    if not trainer.is_global_zero:
        return
    bar: Any = trainer.progress_bar_callback
    if bar is not None:
        bar.print(f"step {step}: {text}")
    else:
        log.warning(f"step {step}: {text}")
    path = Path(trainer.default_root_dir) / FILE
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_whole(path, before + json.dumps({"step": step, "name": name, "text": text}, ensure_ascii=False) + "\n")
