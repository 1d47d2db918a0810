"""The same problems every time, greedily: did the model get better?"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rl_lightning.types import Problem, Rollout, Score, UserError, require
from rl_lightning.whole_files import unused, write_json

Row = dict[str, Any]


class FixedEval(Callback):
    """Evaluate on the data module's fixed problems at step 0, every `fixed_eval_steps` and at the end, and in `validate`.

    Writes `eval_results/eval_step_N.json` (in `validate`: `validate_step_N.json`, N the checkpoint's step) in the trainer's
    `default_root_dir` and logs `eval/accuracy`, `eval/<task>/accuracy` and more. Completions are greedy and draw no random
    number, and the training stream is not touched, so a run with evaluation is the same run as one without.

    Args:
        fixed_eval_steps: optimizer steps between evaluations; at least 1.

    Example:
        Trainer(callbacks=[FixedEval(50)]).fit(GRPOModule(), ReasoningGymDataModule({"chain_sum": TaskSpec()}))
    """

    def __init__(self, fixed_eval_steps: int = 50) -> None:
        require("FixedEval.fixed_eval_steps", fixed_eval_steps, fixed_eval_steps >= 1, "at least 1")
        self.fixed_eval_steps = fixed_eval_steps
        self.latest: dict[str, Any] | None = None
        """The newest evaluation, as written, without its rows."""
        self._rows: list[Row] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:
            self._evaluate(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The newest evaluation."""
        return {"latest": self.latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it over."""
        self.latest = state_dict["latest"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._step_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # With several updates a rollout the clock may step over the multiple.
        if trainer.global_step // self.fixed_eval_steps > self._step_before // self.fixed_eval_steps:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if pl_module.interrupted:
            return  # the end is still to come
        if self.latest is None or self.latest["step"] != trainer.global_step:
            self._evaluate(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rows = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._rows += _rows(batch.problems, outputs["rollout"], outputs["scores"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, self._rows)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rows: list[Row] = []
        module: Any = pl_module
        for index, batch in enumerate(trainer.datamodule.eval_batches(module.plan.eval_rows)):  # type: ignore[attr-defined]
            outputs = module.validation_step(batch.to(module.device), index)
            rows += _rows(batch.problems, outputs["rollout"], outputs["scores"])
        self._report(trainer, pl_module, rows)

    def _report(self, trainer: Trainer, pl_module: Any, rows: list[Row]) -> None:
        """Write the file, log the figures, tell the user."""
        validating = trainer.state.fn == "validate"
        step = pl_module.loaded_step if validating else trainer.global_step
        directory = Path(trainer.default_root_dir) / "eval_results"
        suite = _suite(trainer.datamodule.eval_problems, pl_module)  # type: ignore[attr-defined]
        result: dict[str, Any] = {"step": step, "suite": suite}
        baseline = _baseline(directory / "eval_step_0.json", result["suite"]) if step else None
        tasks = sorted({row["task"] for row in rows})
        result["overall"] = _summary(rows, baseline)
        result["tasks"] = {task: _summary([row for row in rows if row["task"] == task], baseline) for task in tasks}
        self.latest = dict(result)
        if trainer.is_global_zero:
            path = directory / f"{'validate' if validating else 'eval'}_step_{step}.json"
            write_json(unused(path) if validating else path, {**result, "rows": rows})
        for logger in trainer.loggers:
            logger.log_metrics(_metrics(result), step=step)
        bar: Any = trainer.progress_bar_callback
        if bar is not None:
            bar.print(_sentence(result))


def _rows(problems: Sequence[Problem], rollout: Rollout, scores: Sequence[Score]) -> list[Row]:
    """One row a problem, as in the JSON file."""
    return [
        {
            "task": problem.task,
            "index": problem.index,
            "exact": score.exact,
            "partial": score.partial,
            "tokens": tokens,
            "truncated": not finished,
            "completion": text,
        }
        for problem, score, tokens, finished, text in zip(
            problems, scores, rollout.lengths.tolist(), rollout.finished.tolist(), rollout.texts, strict=True
        )
    ]


def _suite(problems: Sequence[Problem], pl_module: Any) -> str:
    """A hash of all that makes two evaluations comparable: the questions and the length limit."""
    parts = [str(pl_module.sampling.max_new_tokens), *(f"{p.task}\0{p.question}" for p in problems)]
    return hashlib.blake2b("\1".join(parts).encode(), digest_size=8).hexdigest()


def _baseline(path: Path, suite: str) -> dict[tuple[str, int], float] | None:
    """Exact scores at step 0 by (task, index), where they are at hand and of the same suite."""
    if not path.is_file():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return {(r["task"], r["index"]): r["exact"] for r in report["rows"]} if report["suite"] == suite else None
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not an evaluation of rl_lightning ({error}); move it away") from error


def _summary(rows: list[Row], baseline: dict[tuple[str, int], float] | None) -> dict[str, Any]:
    """The figures of some rows; shares and scores in [0, 1], tokens in tokens."""
    exact = [row["exact"] for row in rows]
    accuracy = fmean(exact)
    summary: dict[str, Any] = {
        "n": len(rows),
        "accuracy": accuracy,
        "mean_score": fmean(row["partial"] for row in rows),
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / len(rows)),
        "mean_tokens": fmean(row["tokens"] for row in rows),
        "truncated": fmean(row["truncated"] for row in rows),
    }
    if baseline is not None:
        gains = [row["exact"] - baseline[row["task"], row["index"]] for row in rows]
        half = 1.96 * stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
        if math.isfinite(half):
            mean = fmean(gains)
            summary["gain"] = {"mean": mean, "low": mean - half, "high": mean + half}
    return summary


def _metrics(result: dict[str, Any]) -> dict[str, float]:
    names = ("accuracy", "mean_score", "mean_tokens", "truncated")
    metrics = {f"eval/{name}": result["overall"][name] for name in names}
    metrics |= {f"eval/{task}/{name}": figures[name] for task, figures in result["tasks"].items() for name in names}
    if "gain" in result["overall"]:
        metrics["eval/gain"] = result["overall"]["gain"]["mean"]
    return metrics


def _sentence(result: dict[str, Any]) -> str:
    overall = result["overall"]
    text = f"step {result['step']}: accuracy {overall['accuracy']:.3f} on {overall['n']} held-out problems"
    text += f", {overall['mean_tokens']:.0f} tokens each"
    if "gain" in overall:
        gain = overall["gain"]
        text += f"; since step 0 {gain['mean']:+.3f} (95% interval {gain['low']:+.3f} to {gain['high']:+.3f})"
    return text
