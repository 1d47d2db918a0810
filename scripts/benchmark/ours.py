"""Run a workload with rl_lightning: Trainer, GRPOModule and a data module, as a user runs them."""

from __future__ import annotations

import tempfile
import time
from typing import Any

from lightning.pytorch import Trainer

from benchmark.fixed_prompts import FixedPrompts
from benchmark.shared_settings import LEARNING_RATE, AlternatingReward
from benchmark.side_report import SideReport, StepReport, main
from benchmark.task_prompts import TaskPrompts
from benchmark.workloads import Workload, problems, read_config
from rl_lightning.cli.quiet import quiet
from rl_lightning.environments.batches import collate
from rl_lightning.environments.stream import Prompt
from rl_lightning.memory.breakdown import Part
from rl_lightning.memory.plan import Plan
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.rollout import RolloutEngine, Sampling
from rl_lightning.training import StepCallback
from rl_lightning.types import StepRecord

_TRANSIENT: tuple[Part, ...] = ("cache", "activations", "logits", "workspace")


def workload_prompts(workload: Workload, model: str, steps: int) -> FixedPrompts:
    """The prompts of that many steps of a workload."""
    asked = TaskPrompts(read_config(workload.config), load_tokenizer(model))
    prompts = [Prompt(problem, asked.token_ids(problem), {}) for problem in problems(workload, asked, steps)]
    size = workload.prompts
    return FixedPrompts(asked.mixture, [collate(prompts[i : i + size]) for i in range(0, len(prompts), size)])


class StepTimer(StepCallback):
    """Times steps from end to end and notes memory."""

    def __init__(self, report: SideReport) -> None:
        self.report, self.last = report, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.report.model_loaded(sum(p.nbytes for p in pl_module.policy.model.parameters()))
        self.report.predicted = round(transient_bytes(pl_module.plan))
        self.last = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.report.begin_step()

    def on_step_end(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        now, metrics, rollout = time.perf_counter(), pl_module.metrics, record.rollouts.rollout
        self.report.end_step(
            StepReport(
                seconds=now - self.last,
                sample=metrics["time/sample"],
                train=metrics["time/train"],
                sampled_tokens=int(rollout.mask.sum()),
                trained_tokens=int(metrics["policy/trained_tokens"]),
                longest=int(rollout.lengths.max()),
                prompt_tokens=int(rollout.prompt_lengths.sum()),
            )
        )
        self.last = time.perf_counter()


def transient_bytes(plan: Plan) -> float:
    """Maximum bytes that a step allocates and frees again, by the plan: what the profiler's account of tensors should find."""
    need = {phase: sum(parts.get(part, 0) for part in _TRANSIENT) for phase, parts in plan.phases.items()}
    gradient = plan.phases["update"]["optimizer"] - plan.phases["rollout"]["optimizer"]
    return max(need["rollout"], need["update"] + gradient)


def run(
    workload: Workload,
    model: str,
    steps: int,
    seed: int = 0,
    warm_up: int = 0,
    account: bool = False,
    engine: RolloutEngine | None = None,
) -> dict[str, Any]:
    """Train for `warm_up` and then `steps` steps; returns the report.

    Args:
        workload: the work.
        model: the model's directory.
        steps: steps that count.
        seed: of the run.
        warm_up: steps before these.
        account: whether the first step's tensors are accounted for.
        engine: the rollout engine; None: our own.
    """
    quiet()
    data = workload_prompts(workload, model, warm_up + steps)
    module = GRPOModule(
        policy=PolicyConfig(model, quantization="none"),
        sampling=Sampling(workload.generations, workload.new_tokens),
        reward=AlternatingReward(),
        learning_rate=LEARNING_RATE,
        seed=seed,
        engine=engine,
    )
    report = SideReport("ours", warm_up, account)
    with tempfile.TemporaryDirectory() as directory:
        Trainer(
            default_root_dir=directory,
            accelerator="cpu",
            max_steps=warm_up + steps,
            max_epochs=-1,
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[StepTimer(report)],
        ).fit(module, data)
    return report.ended()


if __name__ == "__main__":
    main(run)
