"""rl_lightning's side of a workload: Trainer, GRPOModule and a data module, as a user runs them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader

from benchmark.record import Report, Step, main
from benchmark.sides import LEARNING_RATE, Alternating
from benchmark.work import Workload, problems, quickstart_tasks
from rl_lightning.cli import quiet
from rl_lightning.data import collate
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.policy.phases import Part
from rl_lightning.policy.plan import Plan
from rl_lightning.rollout import Sampling
from rl_lightning.tasks.prompts import PromptTemplate
from rl_lightning.tasks.stream import Prompt
from rl_lightning.types import Problem, PromptBatch

_PASSING: tuple[Part, ...] = ("cache", "activations", "logits", "workspace")


class FixedPrompts(LightningDataModule):
    """The workload's prompts, made before the clock runs."""

    def __init__(self, workload: Workload, model: str, steps: int) -> None:
        super().__init__()
        self.mixture = quickstart_tasks()
        template = PromptTemplate(load_tokenizer(model), system_prompt="")
        made = problems(workload, self.mixture, template, steps)
        prompts = [Prompt(problem, template.token_ids(problem.question), {}) for problem in made]
        self.batches = [collate(prompts[i : i + workload.prompts]) for i in range(0, len(prompts), workload.prompts)]
        self.prompts_per_step = workload.prompts
        self.max_prompt_tokens = max(len(prompt.token_ids) for prompt in prompts)

    def advance(self, cursor: int, outcomes: Sequence[tuple[Problem, float]]) -> None:
        """Nothing follows from what was sampled: the prompts are made."""

    def settings(self) -> dict[str, Any]:
        return {}

    def train_dataloader(self) -> DataLoader[PromptBatch]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]


class Stopwatch(Callback):
    """Times steps from end to end and notes memory."""

    def __init__(self, report: Report) -> None:
        self.report, self.last = report, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.report.model_is_loaded(sum(p.nbytes for p in pl_module.policy.model.parameters()))
        self.report.predicted = round(comes_and_goes(pl_module.plan))
        self.last = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.report.begin_step()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now, metrics, rollout = time.perf_counter(), pl_module.metrics, outputs["record"].groups.rollout
        self.report.end_step(
            Step(
                seconds=now - self.last,
                sample=metrics["time/sample"],
                train=metrics["time/train"],
                sampled_tokens=int(rollout.mask.sum()),
                trained_tokens=int(metrics["policy/trained_tokens"]),
                longest=int(rollout.lengths.max()),
                prompt_tokens=int(batch.prompt_lengths.sum()),
            )
        )
        self.last = time.perf_counter()


def comes_and_goes(plan: Plan) -> float:
    """Bytes that the plan says a step takes and gives back, at most: what the account of tensors should find."""
    need = {phase: sum(parts.get(part, 0) for part in _PASSING) for phase, parts in plan.phases.items()}
    gradient = plan.phases["update"]["optimizer"] - plan.phases["rollout"]["optimizer"]
    return max(need["rollout"], need["update"] + gradient)


def run(
    workload: Workload, model: str, steps: int, seed: int = 0, warm_up: int = 0, account: bool = False
) -> dict[str, Any]:
    """Train for `warm_up` and then `steps` steps; returns the report."""
    quiet()
    data = FixedPrompts(workload, model, warm_up + steps)
    module = GRPOModule(
        policy=PolicyConfig(model, quantization="none"),
        sampling=Sampling(workload.generations, workload.new_tokens),
        reward=Alternating(),
        learning_rate=LEARNING_RATE,
        seed=seed,
    )
    report = Report("ours", warm_up, account)
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
            callbacks=[Stopwatch(report)],
        ).fit(module, data)
    return report.ended()


if __name__ == "__main__":
    main(run)
