"""GRPO (arXiv 2402.03300): sample a group of answers to each prompt, judge each against its group, make the better likelier."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rl_lightning.answering_policy import AnsweringPolicy
from rl_lightning.groups import Groups, chosen
from rl_lightning.metrics import Meter, step_metrics
from rl_lightning.objective import Objective, Tokens, least_sure, policy_loss, token_weights
from rl_lightning.policy import PolicyConfig, Schedule, cut
from rl_lightning.recovery import MOST_IN_A_ROW, again_with_half, keep_for_inspection
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import Reward, WeightedReward
from rl_lightning.types import PromptBatch, Rollout, UserError, require


@dataclass(frozen=True)
class StepRecord:
    """One training step, for callbacks: `outputs["record"]` of `on_train_batch_end`.

    Attributes:
        groups: B prompts with N completions, their scores and rewards.
        advantages: (B, G) float32.
        weights: (N, T) float32, what each token counts in the loss; 0 for those that do not.
        trainer_logps: (N, T) float32, the policy's log-probs of the sampled tokens before the first update; NaN in rows that
            were not forwarded, for they had nothing to teach.
        entropies: (N, T) float32, the policy's at the same tokens, nats; NaN likewise.
    """

    groups: Groups
    advantages: Tensor
    weights: Tensor
    trainer_logps: Tensor
    entropies: Tensor


class GRPOModule(AnsweringPolicy):
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
        buffer, limit = objective.overlong_buffer, sampling.max_new_tokens
        require("model.objective.overlong_buffer", buffer, buffer < limit, f"below max_new_tokens, which is {limit}")
        if sampling.max_resample > 1 and objective.baseline == "batch":
            raise UserError(
                "model.sampling.max_resample: with objective.baseline batch every group teaches; set it to 1"
            )
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
        self.meter, self.metrics = Meter(), {}
        groups = self.collect(batch)
        rollout, (advantages, weights) = groups.rollout, self.lessons(groups)
        old_logps, entropies = (torch.full_like(rollout.sampling_logps, torch.nan) for _ in range(2))
        with self.meter.time("train"):
            if self.objective.top_entropy < 1:
                weights = self.where_least_sure(rollout, advantages.flatten(), weights)
            for iteration in range(self.objective.num_iterations):
                first = iteration == 0
                self.accumulate_gradients(rollout, advantages.flatten(), weights, old_logps, entropies, first)
                self.update()
                if self.not_finite_in_a_row == MOST_IN_A_ROW:
                    file = Path(self.trainer.default_root_dir) / f"not_finite_step_{self.global_step}.pt"
                    raise keep_for_inspection(file, groups.batch, rollout, groups.rewards)
                if self.global_step == self.trainer.max_steps:
                    break
        self.trainer.datamodule.advance(batch.cursor, groups.outcomes())  # type: ignore[attr-defined]
        self.report(step_metrics(groups) | self.meter.metrics(int(rollout.mask.sum())))
        return {"record": StepRecord(groups, advantages, weights, old_logps, entropies)}

    def collect(self, batch: PromptBatch) -> Groups:
        """Sample and judge a group a prompt. A group whose answers all earned the same has nothing to teach: where `max_resample`
        allows it, further prompts are asked until enough groups have (dynamic sampling, DAPO, arXiv 2503.14476)."""
        groups, size = self.answered(batch), len(batch.problems)
        wanted = math.ceil(self.sampling.live_share * size - 1e-9)
        while (room := self.sampling.max_resample * size - len(groups)) > 0:
            live = int(self.live(groups).sum())
            if live >= wanted:
                break
            needed = math.ceil((wanted - live) * len(groups) / max(live, 1))  # if as many of them teach as did so far
            more = self.trainer.datamodule.further(min(needed, room, size))  # type: ignore[attr-defined]
            groups += self.answered(more.to(self.device))
        return replace(groups, kept=chosen(self.live(groups), size))

    def live(self, groups: Groups) -> Tensor:
        """(B,) bool: which groups have something to teach."""
        compared = self.objective.advantages(groups.parts, self.part_weights()) != 0
        if self.objective.mask_truncated_completions:
            compared &= groups.rollout.finished.view_as(compared)
        return compared.any(dim=1)

    def lessons(self, groups: Groups) -> tuple[Tensor, Tensor]:
        """(B, G) advantages and (N, T) weights, float32, of the kept groups; zero in the others."""
        rollout, kept = groups.rollout, groups.kept
        rows = kept.repeat_interleave(rollout.group_size)
        advantages, weights = (
            torch.zeros_like(groups.rewards, dtype=torch.float32),
            torch.zeros_like(rollout.sampling_logps),
        )
        advantages[kept] = self.objective.advantages(groups.parts[kept], self.part_weights())
        counted = rollout.finished[rows] if self.objective.mask_truncated_completions else None
        limit = self.sampling.max_new_tokens
        weights[rows] = token_weights(rollout.mask[rows], self.objective.loss_type, limit, counted)
        return advantages, weights

    @again_with_half("token_budget")
    def where_least_sure(self, rollout: Rollout, advantages: Tensor, weights: Tensor) -> Tensor:
        """(N, T) weights, zero but for the tokens of the highest entropy of the whole step; a forward pass more."""
        entropies, rows = torch.full_like(weights, torch.nan), self.teaching(advantages, weights)
        with torch.no_grad():
            for micro in cut(rollout, rows, self.token_budget):
                _, entropies[micro.row_of, micro.column_of] = self.policy.log_probs(micro, self.sampling.temperature)
        among = torch.zeros_like(rollout.mask)
        among[rows] = rollout.mask[rows]
        return weights * least_sure(entropies, among, self.objective.top_entropy)

    def teaching(self, advantages: Tensor, weights: Tensor) -> Tensor:
        """Rows that the loss depends on. A completion without advantage has no gradient, unless KL or entropy give it one:
        leaving it out is exact."""
        live = weights.any(dim=1) & ((advantages != 0) | self.objective.all_teach)
        return live.nonzero().squeeze(1)

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
        objective, temperature = self.objective, self.sampling.temperature
        self.policy.zero_grad()
        meter = Meter()
        for micro in cut(rollout, self.teaching(advantages, weights), self.token_budget):
            at = micro.row_of, micro.column_of
            logps, entropy = self.policy.log_probs(micro, temperature, objective.entropy_bonus > 0)
            if first:
                old_logps[at], entropies[at] = logps.detach(), entropy.detach()
                meter.add("sampler_gap", (logps.detach() - rollout.sampling_logps[at]).abs().sum())
            ref_logps = self.policy.reference_log_probs(micro, temperature) if objective.beta else None
            tokens = Tokens(
                logps,
                old_logps[at],
                advantages[micro.row_of],
                weights[at],
                micro.row_of,
                rollout.sampling_logps[at],
                ref_logps,
                entropy,
            )
            out = policy_loss(tokens, objective)
            self.manual_backward(self.scaler.scale(out.loss))
            meter.add_all(entropy=entropy.detach().sum(), tokens=len(logps), loss=out.loss.detach(), **out.metrics)
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
