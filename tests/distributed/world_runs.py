"""A run on a rank of a world, what it has come to as plain data, and modules with a fault on one rank."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from rl_lightning.callbacks import AdapterCheckpoint, FixedEval, StopAtSignal
from rl_lightning.curriculum import Curriculum
from rl_lightning.data import PromptDataModule
from rl_lightning.distributed import share_of_groups
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.objective.surrogates import CISPO, GSPO
from rl_lightning.policy import PolicyConfig
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import Reward
from tests.extension_points.training import Records, adapters

LEVELS = [{"max_terms": 2}, {"max_terms": 3}, {"max_terms": 4}]
SUMS = {"chain_sum": TaskSpec(config={"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1})}
LEVELLED = {"chain_sum": TaskSpec(config={"min_terms": 2, "min_digits": 1, "max_digits": 1}, levels=LEVELS)}


class OddLengths(Reward):
    """The completion's length for problems of one kind; nothing for others, whose groups have no variance."""

    def __call__(self, problem, completion, score):
        return len(completion) / 10 if len(problem.question) % 3 else 0.0


SETTINGS: dict[str, dict[str, Any]] = {
    "GSPO, KL, two updates, truncated rows masked, curriculum, uneven prompts": {
        "objective": Objective(surrogate=GSPO(), beta=0.1, num_iterations=2, mask_truncated_completions=True),
        "curriculum": True,
        "prompts": 5,
    },
    "grpo, 4 bits, dynamic sampling": {
        "objective": Objective(loss_type="grpo"),
        "sampling": Sampling(4, 12, max_resample=3),
        "policy": PolicyConfig("tiny"),
        "prompts": 4,
    },
    "all weights": {
        "policy": PolicyConfig("tiny", quantization="none", lora_r=0),
        "objective": Objective(beta=0.1),
        "learning_rate": 1e-4,
        "prompts": 5,
    },
    "CISPO, statistics of the batch, tokens of high entropy": {
        "objective": Objective(
            surrogate=CISPO(), scale_advantages="batch", baseline="batch", top_entropy=0.5, loss_type="dr_grpo"
        ),
        "prompts": 7,
    },
}


class PerRank(GRPOModule):
    """Each rank's loss is the mean over its own tokens, and gradients are averaged, as DistributedDataParallel does."""

    def compute_advantages(self, rollouts):
        advantages, weights = super().compute_advantages(rollouts)
        rows = self.trainable_rows(rollouts.rollout, advantages, weights)
        mine = share_of_groups(rollouts.rollout, rows, self.collective)
        weights[mine] *= weights[rows].sum() / weights[mine].sum() / self.collective.world_size
        return advantages, weights


class Start(Callback):
    """Keeps what is trained as it was."""

    def on_train_start(self, trainer, pl_module):
        self.weights = adapters(pl_module)


class WithFault(GRPOModule):
    """Something goes wrong in the second step: on the last rank, or in a world of one that is told to."""

    fault, always = "", False

    def faulty(self) -> bool:
        last = self.collective.rank == self.collective.world_size - 1
        return self.global_step == 1 and last and (self.always or self.collective.world_size > 1)

    def sample_and_score(self, prompts):
        if self.faulty() and self.fault == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.collective.rank > 0 and self.fault == "makes no problems":
            assert not self.prompt_source.made, "rank 0 alone makes problems"
        if self.faulty() and self.fault == "raises":
            raise RuntimeError("no reward today")
        if self.faulty() and self.fault == "no memory for a rollout":
            self._once(self.engine.decoder, "ready")
        return super().sample_and_score(prompts)

    def validation_step(self, batch, batch_idx):
        if self.fault == "raises in the last evaluation" and self.global_step and self.collective.rank:
            raise RuntimeError("no evaluation today")
        return super().validation_step(batch, batch_idx)

    def score(self, prompts, rollout):
        if self.faulty() and self.fault == "a lost worker":
            for worker in list(self.scorer._pool._pool._pool_manager.worker_manager.workers):
                os.kill(worker, signal.SIGKILL)
        return super().score(prompts, rollout)

    def accumulate_gradients(self, *of, **also):
        if self.faulty() and self.fault == "no memory for the update":
            self._once(self.policy, "log_probs")
        super().accumulate_gradients(*of, **also)
        if self.fault == "never finite" and self.collective.rank:
            self.policy.trained_parameters()[0].grad[0, 0] = torch.nan
        if self.faulty() and self.fault == "not finite":
            self.policy.trained_parameters()[0].grad[0, 0] = torch.nan

    def _once(self, owner, name):
        """Let memory run out at the next call."""

        def fails(*of, **also):
            delattr(owner, name)
            raise torch.OutOfMemoryError("CUDA out of memory")

        setattr(owner, name, fails)


def fit(
    root: Path,
    steps: int,
    settings: dict[str, Any],
    kind: type = GRPOModule,
    resume: int | None = None,
    fault: str = "",
    always: bool = False,
) -> dict[str, Any]:
    """Train on this rank; what the run has come to."""
    seed_everything(0, verbose=False)
    ranks, rest = int(os.environ.get("WORLD_SIZE", "1")), dict(settings)
    levelled, prompts = rest.pop("curriculum", False), rest.pop("prompts", 4)
    defaults = {"policy": PolicyConfig("tiny", quantization="none"), "sampling": Sampling(4, 12)}
    module = kind(**defaults | {"reward": OddLengths(), "learning_rate": 1e-3, "score_workers": 1} | rest)
    module.fault, module.always = fault, always
    if fault == "another learning rate":
        module.learning_rate *= 1 + int(os.environ["RANK"])
    source = PromptDataModule(
        LEVELLED if levelled else SUMS,
        prompts_per_step=prompts,
        system_prompt="",
        num_workers=0,
        eval_num_samples=2,
        curriculum=Curriculum(low=0.0, high=0.01, window=2) if levelled else None,
    )
    if fault == "makes no problems":
        source.made, make = [], source.make
        source.make = lambda *of, **also: source.made.append(of) or make(*of, **also)
    records, start = Records(), Start()
    trainer = Trainer(
        default_root_dir=root,
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=steps * module.objective.num_iterations,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StopAtSignal(), records, start, FixedEval(100), AdapterCheckpoint(save_steps=2)],
    )
    path = None if resume is None else root / f"checkpoint-{resume}" / "trainer.ckpt"
    trainer.fit(module, source, ckpt_path=path)
    return {
        "texts": [record.rollouts.rollout.texts for record in records.records],
        "questions": [[p.question for p in record.rollouts.prompts.problems] for record in records.records],
        "levels": [[p.level for p in record.rollouts.prompts.problems] for record in records.records],
        "kept": [record.rollouts.kept.tolist() for record in records.records],
        "weights": [each.numpy() for each in adapters(module)],
        "moved": [(after - before).numpy() for after, before in zip(adapters(module), start.weights, strict=True)],
        "metrics": {k: v for k, v in module.metrics.items() if not k.startswith(("time/", "memory/"))},
        "cursor": source.cursor,
        "success": source.record.state(),
        "draws": module.generator.get_state().tolist(),
        "limits": [module.limits.token_budget.value, module.limits.rollout_rows.value],
        "step": trainer.global_step,
        "interrupted": module.interrupted,
    }
