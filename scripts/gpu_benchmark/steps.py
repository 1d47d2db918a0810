"""Run real steps through GRPOModule and Trainer, on a GPU limited to any smaller size: do they fit, and where does the time go?"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from typing import Any

from benchmark.shared_settings import LEARNING_RATE, AlternatingReward
from lightning.pytorch import Trainer
from torch import Tensor

from gpu_benchmark import Report
from gpu_benchmark.device import cap, device_of, now, peak, start_peak
from gpu_benchmark.prediction import prediction
from gpu_benchmark.prompts import fixed_prompts
from rl_lightning.memory.device import Device
from rl_lightning.memory.plan import Plan
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.rollout.engine import OnFinished
from rl_lightning.training import StepCallback
from rl_lightning.types import PromptBatch, Rollout, RolloutBatch, StepRecord

_METRICS = (
    "time/sample",
    "time/score",
    "time/train",
    "time/sampled_tokens_per_second",
    "time/trained_tokens_per_second",
    "policy/trained_tokens",
    "policy/logprob_mismatch",
    "policy/grad_norm",
)

Peak = dict[str, int | None]


class MeasuredEngine(LocalEngine):
    """Notes the memory peak of its newest rollout.

    Attributes:
        peak: from the end of the phase before to the rollout's end.
    """

    peak: Peak

    def generate(
        self, prompts: PromptBatch, sampling: Sampling, draws: Tensor | None, on_finished: OnFinished | None = None
    ) -> Rollout:
        rollout = super().generate(prompts, sampling, draws, on_finished)
        self.peak = _peak_of_phase(prompts.prompt_ids.device)
        return rollout


class MeasuredModule(GRPOModule):
    """Notes the memory peak of each phase: loading, rollout and update.

    Attributes:
        gpu_bytes: memory of the GPU that is simulated, for which the plan is made; None is the GPU as it is.
    """

    engine: MeasuredEngine
    gpu_bytes: float | None = None
    load_peak: Peak
    update_peak: Peak

    def configure_model(self) -> None:
        super().configure_model()
        self.load_peak = _peak_of_phase(self.trainer.strategy.root_device)

    def _plan(self, device: Device) -> Plan:
        # Torch is limited to what the GPU has without CUDA's own share; the plan includes that share.
        return super()._plan(device if self.gpu_bytes is None else replace(device, bytes=self.gpu_bytes))

    def step_optimizer(self, rollouts: RolloutBatch) -> None:
        super().step_optimizer(rollouts)
        self.update_peak = _peak_of_phase(self.trainer.strategy.root_device)

    @property
    def peaks(self) -> dict[str, Peak]:
        """Memory of the newest step, by phase."""
        return {"load": self.load_peak, "rollout": self.engine.peak, "update": self.update_peak}


def _peak_of_phase(device: Any) -> Peak:
    found = peak(device)
    start_peak(device)
    return found


class StepTimer(StepCallback):
    """Reports each step when it is done; the last one shows that it fits."""

    def __init__(self, report: Report) -> None:
        self.report, self.steps = report, list[dict[str, Any]]()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        linear = next(m for name, m in pl_module.policy.model.named_modules() if name.endswith("down_proj"))
        self.report(
            predicted=prediction(pl_module.plan),
            weights=type(linear.get_base_layer()).__name__,
            rollouts_on=type(pl_module.engine.decoder).__name__,
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.began = now(pl_module.device)

    def on_step_end(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        seconds = now(pl_module.device) - self.began
        sampled = int(record.rollouts.rollout.mask.sum())
        metrics = {name: round(value, 6) for name, value in pl_module.metrics.items() if name in _METRICS}
        self.steps.append({"seconds": round(seconds, 4), "sampled_tokens": sampled, **metrics})
        self.report(
            fits=len(self.steps) == trainer.max_steps,
            steps=self.steps,
            peaks=pl_module.peaks,
            # Where memory ran out on the way, these have been halved.
            token_budget=pl_module.limits.token_budget.value,
            max_rollout_rows=pl_module.limits.rollout_rows.value,
        )


def train(job: dict[str, Any], report: Report) -> None:
    """Run some steps under a memory limit.

    Args:
        job: `device`; `path` of the model; `gpu_bytes`, all the memory of the GPU that is simulated, or None; `context_bytes`,
            what CUDA itself takes of it; `prompts`, `generations`, `prompt_tokens`, `new_tokens`, `steps`; `policy` and `model`,
            further settings of PolicyConfig and GRPOModule, `sampling` of Sampling.

    Raises:
        UserError: it does not fit.
    """
    device = device_of(job["device"])
    if job["gpu_bytes"] is not None:
        cap(device, job["gpu_bytes"] - job["context_bytes"])
        report(allowed_bytes=job["gpu_bytes"] - job["context_bytes"])
    report(fits=False)
    began = time.perf_counter()
    data = fixed_prompts(job)
    module = MeasuredModule(
        policy=PolicyConfig(job["path"], **job["policy"]),
        sampling=Sampling(job["generations"], job["new_tokens"], **job["sampling"]),
        reward=AlternatingReward(),
        engine=MeasuredEngine(),
        learning_rate=LEARNING_RATE,
        **job["model"],
    )
    module.gpu_bytes = job["gpu_bytes"]
    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(
            default_root_dir=directory,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_steps=job["steps"],
            max_epochs=-1,
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[StepTimer(report)],
        )
        trainer.fit(module, data)
    report(total_seconds=round(time.perf_counter() - began, 2))
