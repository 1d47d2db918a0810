"""Evaluate on the same held-out problems at step 0, at intervals and at the end, with intervals and paired differences."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from rl_lightning.checkpointing.atomic_files import unused_path, write_json
from rl_lightning.distributed import share_of_prompts
from rl_lightning.evaluation import (
    EvalSampling,
    PastEvaluations,
    Suite,
    constant_answers,
    evaluation_result,
    make_suite,
    result_rows,
    store_suite,
    suite_change,
)
from rl_lightning.rollout import LocalEvaluator
from rl_lightning.types import require

log = logging.getLogger(__name__)

Row = dict[str, Any]


class FixedEval(Callback):
    """Evaluate on the data module's fixed problems at step 0, every `fixed_eval_steps` and at the end, and in `validate`.

    Writes `eval_results/eval_step_N.json` (in `validate`: `validate_step_N.json`, N being the checkpoint's step) in the trainer's
    `default_root_dir`, and once `suite.json`, the problems themselves. Logs `eval/accuracy`, `eval/<task>/accuracy` and more.
    Neither the run's RNG states nor its prompt stream are touched, so a run with evaluation is the same as one without.

    Args:
        fixed_eval_steps: optimizer steps between evaluations; at least 1.
        samples: completions sampled per problem, for mean@k, pass@k and maj@k; at least 2. null: one greedy completion.
        temperature: sampling temperature of these completions; above 0.
        rows: sequences that decode at once in an evaluation; at least 1. On a GPU another number may change completions by
            rounding, so all evaluations of a run have the same, unless memory runs out. auto: as many as the memory plan allows.

    Example:
        Trainer(callbacks=[FixedEval(50)]).fit(GRPOModule(), PromptDataModule({"chain_sum": TaskSpec()}))
    """

    def __init__(
        self,
        fixed_eval_steps: int = 50,
        samples: int | None = None,
        temperature: float = 1.0,
        rows: int | Literal["auto"] = "auto",
    ) -> None:
        require("FixedEval.fixed_eval_steps", fixed_eval_steps, fixed_eval_steps >= 1, "at least 1")
        require("FixedEval.samples", samples, samples is None or samples >= 2, "at least 2, or null for greedy")
        require("FixedEval.temperature", temperature, temperature > 0, "above 0 (samples: null is greedy)")
        require("FixedEval.rows", rows, rows == "auto" or rows >= 1, "at least 1, or auto")
        self.fixed_eval_steps, self.rows = fixed_eval_steps, rows
        self.sampling = None if samples is None else EvalSampling(samples, temperature)
        self.latest: dict[str, Any] | None = None
        """The newest evaluation as written, but without its rows."""
        self._rows: list[Row] = []
        self._seconds = 0.0  # of evaluations
        self._run_seconds = 0.0  # of the run, up to the checkpoint that it was resumed from
        self._began = time.monotonic()
        self._constants: dict[str, dict[str, Any]] | None = None
        self._past: PastEvaluations | None = None

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        pl_module.eval_sampling = self.sampling

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._set_rows(pl_module)
        self._began = time.monotonic() - self._run_seconds
        if trainer.global_step == 0:
            self._evaluate(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the newest evaluation, and the seconds that evaluations and the run have taken so far."""
        return {"latest": self.latest, "seconds": self._seconds, "run_seconds": time.monotonic() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.latest = state_dict["latest"]
        self._seconds, self._run_seconds = state_dict["seconds"], state_dict["run_seconds"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._step_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # With several updates per rollout the step may skip the exact multiple.
        if trainer.global_step // self.fixed_eval_steps > self._step_before // self.fixed_eval_steps:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.finish(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: Any) -> None:
        """Evaluate the final policy, once.

        Callbacks that need the final evaluation call this (`final_evaluation`), so the order of callbacks does not matter. A run
        that was interrupted by a signal is not at its end, and is not evaluated.
        """
        if not pl_module.interrupted and (self.latest is None or self.latest["step"] != trainer.global_step):
            self._evaluate(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._set_rows(pl_module)
        self._rows, self._validation_began = [], time.monotonic()
        self._ran_with = conditions(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._rows += result_rows(batch.problems, outputs.rollout, outputs.scores)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            if conditions(pl_module) != self._ran_with:
                self._rows = self._completions(trainer, pl_module)
            self.latest = self._report(trainer, pl_module, self._rows, self._validation_began)

    def _evaluate(self, trainer: Trainer, pl_module: Any) -> None:
        """Evaluate, and report on rank 0."""
        began = time.monotonic()
        rows = self._completions(trainer, pl_module)
        self.latest = pl_module.collective.broadcast(lambda: self._report(trainer, pl_module, rows, began))

    def _set_rows(self, pl_module: Any) -> None:
        """Evaluate with the configured number of rows, or the one that the run began with."""
        limit, before = pl_module.limits.eval_rows, (self.latest or {}).get("ran_with", {})
        if self.rows != "auto":
            limit.set(self.rows)
        elif "rows_at_once" in before:
            limit.set(before["rows_at_once"])

    def _completions(self, trainer: Trainer, pl_module: Any) -> list[Row]:
        """The rows of all problems by all ranks; once more from the start where memory ran out, so that all ran under the same
        conditions."""
        limit, collective = pl_module.limits.eval_rows, pl_module.collective
        changed = True
        while changed:
            limit.set(min(collective.gather(limit.value)))
            before, rows = conditions(pl_module), self._share_of_completions(trainer, pl_module)
            changed = collective.any(conditions(pl_module) != before)
        return [row for part in collective.gather(rows) for row in part]

    def _share_of_completions(self, trainer: Trainer, pl_module: Any) -> list[Row]:
        """The rows of this rank's share of the problems."""
        rows: list[Row] = []
        share = share_of_prompts(pl_module.collective)
        for index, batch in enumerate(trainer.datamodule.eval_batches()):  # type: ignore[attr-defined]
            own = batch.select(share).to(pl_module.device)
            if not own.problems:  # the last batch has fewer than there are ranks
                continue
            evaluated = pl_module.validation_step(own, index)
            rows += result_rows(own.problems, evaluated.rollout, evaluated.scores)
        return rows

    def _report(self, trainer: Trainer, pl_module: Any, rows: list[Row], began: float) -> dict[str, Any]:
        """Compute the metrics, write the file, log, and print a sentence; on rank 0 alone."""
        validating = trainer.state.fn == "validate"
        step = pl_module.loaded_step if validating else trainer.global_step
        directory = Path(trainer.default_root_dir) / "eval_results"
        rows.sort(key=lambda row: (row["task"], row["index"]))
        if self._constants is None:
            self._constants = constant_answers(trainer.datamodule.eval_problems, pl_module.scorer.score_answers)  # type: ignore[attr-defined]
        self._past = self._past or PastEvaluations(directory)
        suite = self._suite(trainer, pl_module)
        result = evaluation_result(step, rows, suite, self._past, self._constants, conditions(pl_module))
        if (other := result.get("rounds_otherwise")) is not None:
            log.warning(
                f"this evaluation and that of step {other['step']} round otherwise, which may change single completions: "
                f"{'; '.join(other['what'])}"
            )
        if (change := suite_change(suite, self._past, step, directory)) is not None:
            result["suite_change"] = {"step": change[0], "what": change[1]}
            log.warning(
                f"this evaluation's suite differs from that of step {change[0]}, so the two are not compared: "
                f"{'; '.join(change[1])}"
            )
        if named := [{"task": row["task"], "index": row["index"]} for row in rows if "not_finite" in row]:
            result["not_finite"] = named
            log.warning(
                f"step {step}: {len(named)} of {len(rows)} evaluation problems count as wrong, because the model's logits were not "
                f"finite numbers: {', '.join('{task} {index}'.format(**each) for each in named[:8])}"
            )
        if groups := trainer.datamodule.record.groups_by_level():  # type: ignore[attr-defined]
            result["trained_levels"] = groups
        result["seconds"] = time.monotonic() - began
        if validating:
            checkpoint = trainer.ckpt_path or pl_module.policy_config.adapter
            model = pl_module.policy_config.model_name_or_path
            result["of"] = {"model": model, "checkpoint": None if checkpoint is None else str(checkpoint)}
        else:
            if step == 0 and pl_module.policy_config.adapter is not None:
                result["began_from"] = pl_module.policy_config.adapter
            self._seconds += result["seconds"]
            result["share_of_run"] = self._seconds / (time.monotonic() - self._began)
        store_suite(suite, directory)
        path = directory / f"{'validate' if validating else 'eval'}_step_{step}.json"
        write_json(unused_path(path) if validating else path, {**result, "rows": rows})
        for logger in trainer.loggers:
            logger.log_metrics(_metrics(result), step=step)
        bar: Any = trainer.progress_bar_callback
        if bar is not None:
            bar.print(_sentence(result))
        return result

    def _suite(self, trainer: Trainer, pl_module: Any) -> Suite:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        configs = {name: task.config for name, task in data.mixture.tasks.items()}
        for name, levels in data.mixture.levels_of.items():
            configs[name] = {**configs[name], "levels": list(levels)}
        length = pl_module.sampling.max_new_tokens
        prompt = data.prompt.in_evaluation()
        if data.examples and data.prompt.always_shows_examples:
            prompt["examples"] = data.examples
        system_prompt = data.prompt.system_prompt
        return make_suite(data.eval_problems, length, system_prompt, self.sampling, data.eval_seed, configs, prompt)


def conditions(pl_module: Any) -> dict[str, Any]:
    """What an evaluation runs under now; see `Conditions`. Of an engine that is not the policy itself its class alone."""
    evaluator, policy = pl_module.evaluator, pl_module.policy
    if not isinstance(evaluator, LocalEvaluator):
        return {"engine": type(evaluator).__qualname__}
    merged = pl_module.plan.settings.merged
    return {
        "rows_at_once": pl_module.limits.eval_rows.value,
        "cuda_graphs": evaluator.graphs.uses_graphs,
        "weights": "trained" if policy.trains_all else "merged" if merged else "unmerged",
        "dtype": str(policy.compute_dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(policy.device) if policy.device.type == "cuda" else policy.device.type,
    }


def latest_evaluation(trainer: Trainer) -> dict[str, Any] | None:
    """Return the newest evaluation of the trainer's FixedEval, without its rows; None if there is none yet."""
    return next((c.latest for c in trainer.callbacks if isinstance(c, FixedEval)), None)  # type: ignore[attr-defined]


def final_evaluation(trainer: Trainer, pl_module: Any) -> dict[str, Any] | None:
    """Return the evaluation of the final policy, evaluating now if that was not done yet; None without a FixedEval."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FixedEval):
            callback.finish(trainer, pl_module)
    return latest_evaluation(trainer)


def _metrics(result: dict[str, Any]) -> dict[str, float]:
    names = ("accuracy", "standard_error", "mean_score", "mean_tokens", "truncated")
    groups = {"eval": result["overall"], **{f"eval/{task}": found for task, found in result["tasks"].items()}}
    metrics = {f"{group}/{name}": found[name] for group, found in groups.items() for name in names}
    for group, found in groups.items():
        metrics |= {f"{group}/pass_at_{k}": value for k, value in found.get("pass_at_k", {}).items()}
        if "majority_at_k" in found:
            metrics[f"{group}/majority_at_k"] = found["majority_at_k"]
    metrics["time/evaluate"] = result["seconds"]
    if "share_of_run" in result:
        metrics["time/evaluate_share"] = result["share_of_run"]
    for name in ("gain", "gain_best"):
        if name in result["overall"]:
            metrics[f"eval/{name}"] = result["overall"][name]["mean"]
    return metrics


def _sentence(result: dict[str, Any]) -> str:
    overall = result["overall"]
    text = f"step {result['step']}: accuracy {overall['accuracy']:.3f} on {overall['n']} held-out problems"
    text += f", {overall['mean_tokens']:.0f} tokens each"
    if "gain" in overall:
        gain = overall["gain"]
        text += f"; since step 0 {gain['mean']:+.3f} (95% interval {gain['low']:+.3f} to {gain['high']:+.3f})"
    if result["step"] and "share_of_run" in result:
        text += f"; evaluations took {result['share_of_run']:.0%} of the run so far"
    return text
