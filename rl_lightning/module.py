"""GRPO (arXiv 2402.03300): sample a group of answers to each prompt, judge each against its group, make the better likelier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rl_lightning.metrics import Meter, outcomes, step_metrics
from rl_lightning.objective import Objective, group_advantages, policy_loss, token_weights
from rl_lightning.policy import PolicyConfig, Schedule, cut
from rl_lightning.recovery import MOST_IN_A_ROW, again_with_half, keep_for_inspection
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import Reward, WeightedReward
from rl_lightning.trainable_policy import TrainablePolicy
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
        trainer_logps: (N, T) float32, the policy's log-probs of the sampled tokens before the first update; NaN in rows that
            were not forwarded, for they had nothing to teach.
        entropies: (N, T) float32, the policy's at the same tokens, nats; NaN likewise.
    """

    batch: PromptBatch
    rollout: Rollout
    scores: Sequence[Score]
    rewards: Tensor
    advantages: Tensor
    trainer_logps: Tensor
    entropies: Tensor


class GRPOModule(TrainablePolicy):
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
        token_budget: tokens of a micro-batch in the update; less needs less memory; auto: what the card has room for.
        score_workers: processes in which answers are scored; at least 1.
        score_seconds: an answer whose scorer takes longer earns nothing; > 0.
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
        token_budget: int | Literal["auto"] = "auto",
        score_workers: int = 2,
        score_seconds: float = 2.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {
            "learning_rate": learning_rate,
            "max_grad_norm": max_grad_norm,
            "score_workers": score_workers,
            "score_seconds": score_seconds,
        }.items():
            require(f"model.{name}", value, value > 0, "above 0")
        allowed = token_budget == "auto" or token_budget > 0
        require("model.token_budget", token_budget, allowed, "above 0, or auto")
        require("model.warmup_steps", warmup_steps, warmup_steps >= 0, "0 or more")
        self.policy_config, self.objective, self.reward = policy, objective, reward
        self.sampling = replace(sampling)  # a copy: too little memory may halve its rows
        self.learning_rate, self.lr_schedule, self.warmup_steps = learning_rate, lr_schedule, warmup_steps
        self.weight_decay, self.max_grad_norm, self.token_budget, self.seed = (
            weight_decay,
            max_grad_norm,
            token_budget,
            seed,
        )
        self.score_workers, self.score_seconds = score_workers, score_seconds
        self.generator = torch.Generator().manual_seed(seed)

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
        old_logps, entropies = (torch.full_like(rollout.sampling_logps, torch.nan) for _ in range(2))
        with self.meter.time("train"):
            for iteration in range(self.objective.num_iterations):
                first = iteration == 0
                self.accumulate_gradients(rollout, advantages.flatten(), weights, old_logps, entropies, first)
                self.update()
                if self.not_finite_in_a_row == MOST_IN_A_ROW:
                    file = Path(self.trainer.default_root_dir) / f"not_finite_step_{self.global_step}.pt"
                    raise keep_for_inspection(file, batch, rollout, rewards)
                if self.global_step == self.trainer.max_steps:
                    break
        self.trainer.datamodule.advance(batch.cursor, outcomes(batch.problems, scores))  # type: ignore[attr-defined]
        self.metrics = step_metrics(batch, rollout, scores, rewards) | self.meter.metrics(int(rollout.mask.sum()))
        return {"record": StepRecord(batch, rollout, scores, rewards, advantages, old_logps, entropies)}

    @again_with_half("sampling.max_rollout_rows")
    def sample(self, batch: PromptBatch, generator: torch.Generator) -> Rollout:
        """A group of completions a prompt; the generator moves on when it has them."""
        draws = generator.clone_state()
        rollout = self.roll(batch, self.sampling, draws)
        generator.set_state(draws.get_state())
        return rollout

    def judge(self, batch: PromptBatch, rollout: Rollout) -> tuple[list[Score], Tensor]:
        """N scores and (B, G) rewards."""
        problems = [problem for problem in batch.problems for _ in range(rollout.group_size)]
        scores = self.scorer(problems, rollout.texts)
        rewards = torch.tensor([self.reward(*each) for each in zip(problems, rollout.texts, scores, strict=True)])
        if not rewards.isfinite().all():
            raise UserError(f"model.reward: {type(self.reward).__name__} gave a reward that is not a finite number")
        return scores, rewards.float().view(len(batch.problems), -1).to(self.device)

    @again_with_half("token_budget")
    def accumulate_gradients(
        self,
        rollout: Rollout,
        advantages: Tensor,
        weights: Tensor,
        old_logps: Tensor,
        entropies: Tensor,
        first: bool,
    ) -> None:
        """The gradient of the loss of the whole rollout, micro-batch by micro-batch; how it is cut changes nothing.

        Args:
            rollout: N completions.
            advantages: (N,).
            weights: (N, T), fixed for the whole step.
            old_logps: (N, T), filled at the first update, read at the next ones.
            entropies: (N, T), filled at the first update.
            first: whether the policy still is the one that sampled.
        """
        beta, temperature = self.objective.beta, self.sampling.temperature
        # A completion without advantage has no gradient, unless the KL gives it one: leaving it out is exact.
        live = weights.any(dim=1) & ((advantages != 0) | (beta > 0))
        self.policy.zero_grad()
        meter = Meter()
        for micro in cut(rollout, live.nonzero().squeeze(1), self.token_budget):
            at = micro.row_of, micro.column_of
            logps, entropy = self.policy.log_probs(micro, temperature)
            if first:
                old_logps[at], entropies[at] = logps.detach(), entropy
                meter.add("sampler_gap", (logps.detach() - rollout.sampling_logps[at]).abs().sum())
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
            meter.add_all(entropy=entropy.sum(), tokens=len(logps), loss=out.loss.detach(), **out.metrics)
        self.meter.add_all(**meter.sums)

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
                self.not_finite_in_a_row = 0
            else:
                optimizer.zero_grad()
                self.meter.add("skipped_updates", 1)
                self.not_finite_in_a_row += self.scaler.get_scale() <= 1  # above, the scaler is looking for its scale
            self.scaler.update()
        self.meter.add_all(updates=1, learning_rate=optimizer.param_groups[0]["lr"])
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()  # type: ignore[union-attr]
