"""GRPO (arXiv 2402.03300): sample a group of answers to each prompt, judge each against its group, make the better likelier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from rl_lightning.metrics import Meter, step_metrics
from rl_lightning.objective import Objective, group_advantages, policy_loss, token_weights
from rl_lightning.policy import Policy, PolicyConfig, Schedule, cut, learning_rate_share
from rl_lightning.rollout import Sampling, sample_groups
from rl_lightning.scoring import Reward, Scorer, WeightedReward
from rl_lightning.types import PromptBatch, Rollout, Score, UserError, require


@dataclass(frozen=True)
class StepRecord:
    """One training step, for callbacks: `outputs["record"]` of `on_train_batch_end`.

    Attributes:
        batch: B prompts.
        rollout: N completions.
        scores: N scores.
        rewards: (B, G) float32.
        advantages: (B, G) float32.
    """

    batch: PromptBatch
    rollout: Rollout
    scores: Sequence[Score]
    rewards: Tensor
    advantages: Tensor


class GRPOModule(LightningModule):
    """A policy that learns by GRPO.

    Args:
        policy: the model.
        sampling: how completions are drawn.
        objective: the loss.
        reward: what a completion earns; a class of your own by its path.
        learning_rate: of AdamW on the adapters, > 0.
        lr_schedule: after the warm-up: constant, or down to zero at max_steps along a line or a cosine.
        warmup_steps: optimizer steps over which the rate rises from zero.
        weight_decay: of AdamW.
        max_grad_norm: gradients are scaled down to this norm; > 0.
        token_budget: tokens, padding included, of a micro-batch in the update; less needs less memory.
        seed: of the sampler and of the adapters' initial values.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        policy: PolicyConfig = PolicyConfig(),  # noqa: B008
        sampling: Sampling = Sampling(),  # noqa: B008
        objective: Objective = Objective(),  # noqa: B008
        reward: Reward = WeightedReward(),  # noqa: B008
        learning_rate: float = 1e-5,
        lr_schedule: Schedule = "constant",
        warmup_steps: int = 0,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
        token_budget: int = 8192,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {
            "learning_rate": learning_rate,
            "max_grad_norm": max_grad_norm,
            "token_budget": token_budget,
        }.items():
            require(f"model.{name}", value, value > 0, "above 0")
        require("model.warmup_steps", warmup_steps, warmup_steps >= 0, "0 or more")
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold the adapter only; on_load_checkpoint checks that it is whole
        self.policy_config, self.sampling, self.objective, self.reward = policy, sampling, objective, reward
        self.learning_rate, self.lr_schedule, self.warmup_steps = learning_rate, lr_schedule, warmup_steps
        self.weight_decay, self.max_grad_norm, self.token_budget, self.seed = (
            weight_decay,
            max_grad_norm,
            token_budget,
            seed,
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.loaded_step = 0
        """The optimizer step of the checkpoint that was loaded, 0 where none was: Lightning's own clock rests in `validate`."""

    def training_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, Any]:
        """One trip: prompts, group sampling, scoring, advantages, and `num_iterations` updates."""
        self.meter = Meter()
        with self.meter.time("sample"):
            rollout = self.sample(batch, self.generator)
        with self.meter.time("score"):
            scores, rewards = self.judge(batch, rollout)
        advantages = group_advantages(rewards, self.objective.scale_advantages)
        counted = rollout.finished if self.objective.mask_truncated_completions else None
        weights = token_weights(rollout.mask, self.objective.loss_type, self.sampling.max_new_tokens, counted)
        old_logps = torch.zeros_like(rollout.sampling_logps)
        with self.meter.time("train"):
            for iteration in range(self.objective.num_iterations):
                self.accumulate_gradients(rollout, advantages.flatten(), weights, old_logps, first=iteration == 0)
                self.update()
                if self.global_step == self.trainer.max_steps:
                    break
        self.trainer.datamodule.cursor = batch.cursor  # type: ignore[attr-defined]
        metrics = step_metrics(batch, rollout, scores, rewards) | self.meter.metrics(int(rollout.mask.sum()))
        self.log_dict(metrics | {"step": float(self.global_step)}, batch_size=len(scores))  # the loggers' x axis
        return {"record": StepRecord(batch, rollout, scores, rewards, advantages)}

    def sample(self, batch: PromptBatch, generator: torch.Generator | None) -> Rollout:
        """A group of completions a prompt, or one greedy completion where there is no generator."""
        with self.policy.sampling() as model:
            return sample_groups(
                model,
                batch,
                self.sampling,
                self.policy.end_token_ids,
                self.policy.decode_text,
                generator,
                self.policy.pad_token_id,
            )

    def judge(self, batch: PromptBatch, rollout: Rollout) -> tuple[list[Score], Tensor]:
        """N scores and (B, G) rewards."""
        problems = [problem for problem in batch.problems for _ in range(rollout.group_size)]
        scores = self.scorer(problems, rollout.texts)
        rewards = torch.tensor([self.reward(*each) for each in zip(problems, rollout.texts, scores, strict=True)])
        if not rewards.isfinite().all():
            raise UserError(f"model.reward: {type(self.reward).__name__} gave a reward that is not a finite number")
        return scores, rewards.float().view(len(batch.problems), -1).to(self.device)

    def accumulate_gradients(
        self, rollout: Rollout, advantages: Tensor, weights: Tensor, old_logps: Tensor, first: bool
    ) -> None:
        """The gradient of the loss of the whole rollout, micro-batch by micro-batch; how it is cut changes nothing.

        Args:
            rollout: N completions.
            advantages: (N,).
            weights: (N, T), fixed for the whole step.
            old_logps: (N, T), filled at the first update, read at the next ones.
            first: whether the policy still is the one that sampled.
        """
        beta, temperature = self.objective.beta, self.sampling.temperature
        # A completion without advantage has no gradient, unless the KL gives it one: leaving it out is exact.
        live = weights.any(dim=1) & ((advantages != 0) | (beta > 0))
        for micro in cut(rollout, live.nonzero().squeeze(1), self.token_budget):
            at = micro.row_of, micro.column_of
            logps, entropy = self.policy.log_probs(micro, temperature)
            if first:
                old_logps[at] = logps.detach()
                self.meter.add("sampler_gap", (logps.detach() - rollout.sampling_logps[at]).abs().sum())
            ref_logps = self.policy.reference_log_probs(micro, temperature) if beta else None
            out = policy_loss(
                logps,
                old_logps[at],
                advantages[micro.row_of],
                weights[at],
                self.objective.epsilon,
                self.objective.epsilon_high,
                ref_logps,
                beta,
            )
            self.manual_backward(self.scaler.scale(out.loss))
            self.meter.add_all(entropy=entropy.sum(), tokens=len(logps), loss=out.loss.detach(), **out.metrics)

    def update(self) -> None:
        """Clip and step. Without gradients (all groups dead) or with a gradient that is not finite the weights stay as they
        are, bit for bit, and the clock still advances: a converged run must end."""
        optimizer: Any = self.optimizers()
        parameters = self.policy.adapter_parameters()
        if any(p.grad is not None for p in parameters):
            self.scaler.unscale_(optimizer.optimizer)
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            if torch.isfinite(norm):
                self.meter.add("grad_norm", norm)
            else:
                optimizer.zero_grad()
                self.meter.add("skipped_updates", 1)
            self.scaler.update()
        self.meter.add_all(updates=1, learning_rate=optimizer.param_groups[0]["lr"])
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()  # type: ignore[union-attr]

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, Any]:
        """Greedy completions and their scores; random states stay as they are."""
        rollout = self.sample(batch, generator=None)
        return {"rollout": rollout, "scores": self.scorer(batch.problems, rollout.texts)}

    # --- Lightning's hooks ------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Scorers for the data module's tasks."""
        self.scorer = Scorer(self.trainer.datamodule.mixture)  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        """Load the policy once, where it will live."""
        if not hasattr(self, "policy"):
            device = self.trainer.strategy.root_device
            kinds, precision = ("cpu", "cuda"), self.trainer.precision
            require("trainer.accelerator", device.type, device.type in kinds, "cpu, or gpu with a CUDA device")
            require("trainer.precision", precision, precision == "32-true", "32-true: see model.policy.dtype instead")
            self.policy = Policy(self.policy_config, device, self.seed)
            self.scaler = torch.amp.GradScaler(device.type, enabled=self.policy.compute_dtype == torch.float16)

    def configure_optimizers(self) -> Any:
        """AdamW on the adapters."""
        rate = learning_rate_share(self.lr_schedule, self.warmup_steps, self.trainer.max_steps)
        optimizer = torch.optim.AdamW(
            self.policy.adapter_parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, rate)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adapters only, and the states that decide what is sampled next."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["sampler"] = self.generator.get_state()
        checkpoint["loss_scaler"] = self.scaler.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse an adapter of another shape, which non-strict loading would drop without a word."""
        trained = {name: p.shape for name, p in self.named_parameters() if p.requires_grad}
        found = {name: t.shape for name, t in checkpoint["state_dict"].items()}
        if trained != found:
            wrong = sorted(n for n in trained.keys() | found.keys() if trained.get(n) != found.get(n))
            raise UserError(
                f"ckpt_path: the checkpoint's adapter does not fit this model: {len(wrong)} of {len(trained)} tensors differ, "
                f"the first is {wrong[0]}; use the model.policy section that it was trained with"
            )
        self.loaded_step = checkpoint["global_step"]
        self.generator.set_state(checkpoint["sampler"])
        if self.scaler.is_enabled() and checkpoint["loss_scaler"]:  # empty where it was written without loss scaling
            self.scaler.load_state_dict(checkpoint["loss_scaler"])
