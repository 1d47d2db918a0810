"""Real steps through GRPOModule and Trainer, on a card as large as one likes: do they fit, and where does the time go?"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from typing import Any

from benchmark.sides import LEARNING_RATE, Alternating
from lightning.pytorch import Callback, Trainer

from gpu_benchmark import Report
from gpu_benchmark.device import cap, device_of, now, peak, start_peak
from gpu_benchmark.prediction import prediction
from gpu_benchmark.prompts import FixedPrompts
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.plan import Card, Plan
from rl_lightning.rollout import Sampling

_METRICS = (
    "time/sample",
    "time/score",
    "time/train",
    "time/sampled_tokens_per_second",
    "time/trained_tokens_per_second",
    "policy/trained_tokens",
    "policy/sampler_gap",
    "policy/grad_norm",
)


class Phases(GRPOModule):
    """Notes the peak of each phase: loading, rollout and update.

    Attributes:
        card_bytes: of the card that is imitated, which the plan is made for; None is the card as it is.
    """

    peaks: dict[str, dict[str, int | None]]
    card_bytes: float | None = None

    def configure_model(self) -> None:
        super().configure_model()
        self.peaks = {"load": self._peak()}

    def _planned(self, card: Card) -> Plan:
        # Torch is held to what the card has without CUDA's own share; the plan counts that in.
        return super()._planned(card if self.card_bytes is None else replace(card, bytes=self.card_bytes))

    def sample(self, *args: Any) -> Any:
        rollout = super().sample(*args)
        self.peaks["rollout"] = self._peak()
        return rollout

    def update(self) -> None:
        super().update()
        self.peaks["update"] = self._peak()

    def _peak(self) -> dict[str, int | None]:
        device = self.trainer.strategy.root_device
        found = peak(device)
        start_peak(device)
        return found


class Stopwatch(Callback):
    """Reports each step when it is done; the last one shows that it fits."""

    def __init__(self, report: Report) -> None:
        self.report, self.steps = report, list[dict[str, Any]]()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        policy = pl_module.policy
        linear = next(m for name, m in policy.model.named_modules() if name.endswith("down_proj"))
        self.report(
            predicted=prediction(pl_module.plan),
            weights=type(linear.get_base_layer()).__name__,
            rollouts_on=type(policy.rollout_network).__name__,
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.began = now(pl_module.device)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        seconds = now(pl_module.device) - self.began
        sampled = int(outputs["record"].groups.rollout.mask.sum())
        metrics = {name: round(value, 6) for name, value in pl_module.metrics.items() if name in _METRICS}
        self.steps.append({"seconds": round(seconds, 4), "sampled_tokens": sampled, **metrics})
        self.report(
            fits=len(self.steps) == trainer.max_steps,
            steps=self.steps,
            peaks=pl_module.peaks,
            # Where memory ran out on the way, these have been halved.
            token_budget=pl_module.token_budget,
            max_rollout_rows=pl_module.sampling.max_rollout_rows,
        )


def train(job: dict[str, Any], report: Report) -> None:
    """Some steps under a cap.

    Args:
        job: `device`; `path` of the model; `card_bytes`, all the memory of the card that is imitated, or None; `context_bytes`,
            what CUDA itself takes of it; `prompts`, `generations`, `prompt_tokens`, `new_tokens`, `steps`; `policy` and `model`,
            further settings of PolicyConfig and GRPOModule, `sampling` of Sampling.

    Raises:
        UserError: it does not fit.
    """
    device = device_of(job["device"])
    if job["card_bytes"] is not None:
        cap(device, job["card_bytes"] - job["context_bytes"])
        report(allowed_bytes=job["card_bytes"] - job["context_bytes"])
    report(fits=False)
    began = time.perf_counter()
    data = FixedPrompts(job, job["steps"])
    module = Phases(
        policy=PolicyConfig(job["path"], **job["policy"]),
        sampling=Sampling(job["generations"], job["new_tokens"], **job["sampling"]),
        reward=Alternating(),
        learning_rate=LEARNING_RATE,
        **job["model"],
    )
    module.card_bytes = job["card_bytes"]
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
            callbacks=[Stopwatch(report)],
        )
        trainer.fit(module, data)
    report(total_seconds=round(time.perf_counter() - began, 2))
