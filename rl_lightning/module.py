"""The training step of GRPO (arXiv 2402.03300): sample groups, score, normalise within the group, update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from rl_lightning.checkpointing.resume import settings
from rl_lightning.distributed import fill_missing, logprobs_of_all, share_of_groups, share_of_prompts
from rl_lightning.memory import LossTerms, halve_on_oom
from rl_lightning.objective import (
    LossInputs,
    Objective,
    high_entropy_mask,
    overlong_penalty,
    policy_loss,
    token_weights,
)
from rl_lightning.policy import PolicyConfig, pack
from rl_lightning.rollout import LocalEngine, RolloutEngine, Sampling, draw_uniforms
from rl_lightning.scoring import Reward, WeightedReward, as_reward, component_weights, group_components
from rl_lightning.training import ScoredModule
from rl_lightning.training.compatible_settings import refuse_incompatible
from rl_lightning.training.dynamic_sampling import extra_prompts_needed, groups_to_keep
from rl_lightning.training.joining import append, interleave
from rl_lightning.training.learning_rate import Schedule
from rl_lightning.training.metrics import StepMeter, rollout_metrics
from rl_lightning.training.non_finite import warn_of_not_finite, wrong_if_not_finite
from rl_lightning.training.reward_trial import try_reward
from rl_lightning.training.right_samples import after_prompts, right_samples
from rl_lightning.types import (
    PromptBatch,
    Rollout,
    RolloutBatch,
    Score,
    StepRecord,
    TrainerLogprobs,
    require,
)


class GRPOModule(ScoredModule):
    """Trains a policy by GRPO.

    Args:
        policy: the model.
        sampling: how completions are sampled.
        objective: advantages and loss.
        reward: the reward function; your own class or function by its path.
        engine: generates the completions; null: the policy itself (LocalEngine).
        learning_rate: peak learning rate of AdamW; above 0.
        sft_steps: number of first optimizer steps that are supervised ones, on the policy's own right and well-formed samples
            (rejection sampling); 0 or more. With data.examples_for: sft_steps only their samples are drawn with examples in the
            prompt.
        lr_schedule: learning rate after the warm-up: constant, or decay to zero at max_steps, linear or along a cosine.
        warmup_steps: optimizer steps over which the learning rate rises from zero; 0 or more.
        weight_decay: decoupled weight decay of AdamW; 0 or more.
        max_grad_norm: the L2 norm over all gradients is clipped to this; above 0.
        token_budget: tokens of a micro-batch in the update, above 0; fewer need less memory; auto: as many as fit in memory.
        score_workers: number of processes that verify answers; at least 1.
        score_seconds: time limit of an answer's verifier, in seconds; a slower answer scores 0; above 0.
        seed: seed of the sampler and of the adapters' initial values.

    Attributes:
        supervised: whether the current step is one of the `sft_steps`.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        policy: PolicyConfig = PolicyConfig(),  # noqa: B008
        sampling: Sampling = Sampling(),  # noqa: B008
        objective: Objective = Objective(),  # noqa: B008
        reward: Reward | Callable[..., Any] = WeightedReward(),  # noqa: B008
        engine: RolloutEngine | None = None,
        sft_steps: int = 0,
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
        super().__init__(
            score_workers,
            score_seconds,
            policy=policy,
            sampling=sampling,
            engine=engine or LocalEngine(),
            token_budget=token_budget,
            learning_rate=learning_rate,
            lr_schedule=lr_schedule,
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            seed=seed,
            terms=LossTerms(objective.beta > 0, objective.entropy_bonus > 0),
        )
        self.objective, self.reward, self.sft_steps = objective, as_reward(reward), sft_steps
        self.supervised = False
        require("model.sft_steps", sft_steps, sft_steps >= 0, "0 or more")
        refuse_incompatible(policy, sampling, objective)

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """One GRPO step: sample and score groups, compute advantages, and make the optimizer steps.

        One rollout gives `num_iterations` optimizer steps, each over the WHOLE batch: there are no mini-batches. Micro-batches
        only accumulate the gradient of one optimizer step.
        """
        self.meter, self.supervised = StepMeter(self.collective), self.global_step < self.sft_steps
        rollouts = self.collect_rollouts(batch)
        warn_of_not_finite(self.global_step + 1, rollouts, self.collective)
        advantages, weights = self.compute_advantages(rollouts)
        logprobs = TrainerLogprobs.empty(rollouts.rollout)
        with self.meter.time("train"):
            if self.objective.top_entropy < 1 and not self.supervised:
                weights = self.mask_low_entropy(rollouts.rollout, advantages, weights)
            for iteration in range(self.objective.num_iterations):
                self.accumulate_gradients(rollouts.rollout, advantages, weights, logprobs, first=iteration == 0)
                self.step_optimizer(rollouts)
                if self.reached_max_steps:
                    break
            logprobs = logprobs_of_all(logprobs, self.collective)
        self.prompt_source.advance(batch.cursor, [] if self.supervised else rollouts.accuracies)
        of = rollouts, advantages, weights, logprobs, self.meter.finish(), self.supervised
        record = StepRecord(self.global_step, *of)
        self.finish_step(record, rollout_metrics(rollouts) | self.meter.metrics(int(rollouts.rollout.mask.sum())))

    def collect_rollouts(self, prompts: PromptBatch) -> RolloutBatch:
        """Sample and score a group for every prompt. A group without reward variance has no gradient, so extra prompts are sampled
        until enough groups have variance or `max_resample` is reached (dynamic sampling, DAPO, arXiv 2503.14476)."""
        self.engine.sync_weights()
        if self.supervised:
            shown = self.prompt_source.with_examples(prompts).to(self.device)
            return after_prompts(self.sample_and_score(shown), prompts)
        rollouts = self.sample_and_score(prompts)
        variance = self.has_variance(rollouts)
        while count := extra_prompts_needed(self.sampling, len(prompts), variance):
            rollouts = append(rollouts, self.sample_and_score(self.prompt_source.extra_prompts(count).to(self.device)))
            variance = self.has_variance(rollouts)
        return replace(rollouts, kept=groups_to_keep(variance, len(prompts)) & rollouts.kept)

    def sample_and_score(self, prompts: PromptBatch) -> RolloutBatch:
        """A scored group of completions for each prompt, gathered from the shares of all ranks."""
        group, share = self.sampling.num_generations, share_of_prompts(self.collective)
        draws = draw_uniforms(self.generator, len(prompts) * group, self.sampling.max_new_tokens)
        mine, draws = prompts.select(share), draws.unflatten(0, (-1, group))[share].flatten(0, 1)
        scored = [self.scored_groups(mine, draws)] if mine.problems else []  # extra prompts may be fewer than ranks
        return interleave([groups for of_rank in self.collective.gather(scored) for groups in of_rank])

    def scored_groups(self, prompts: PromptBatch, draws: Tensor) -> RolloutBatch:
        """A scored group of completions for each prompt of this rank, from uniform draws for each completion and token."""
        with self.meter.time("sample"):
            on_finished = self.scoring_callback(prompts, self.sampling.num_generations)
            rollout = self.engine.generate(prompts, self.sampling, draws, on_finished)
        with self.meter.time("score"):
            scores, components = self.score(prompts, rollout)
        rewards = components @ self.component_weights()
        return RolloutBatch(prompts, rollout, scores, components, rewards, kept=rollout.finite_groups)

    def score(self, prompts: PromptBatch, rollout: Rollout) -> tuple[tuple[Score, ...], Tensor]:
        """N scores and (B, G, R) float64 reward components, of which the last is the length penalty."""
        problems = prompts.repeat_problems(rollout.group_size)
        scores = wrong_if_not_finite(self.scorer(problems, rollout.texts), rollout)
        components = group_components(self.reward, self.objective, problems, rollout, scores)
        penalty = overlong_penalty(rollout.lengths, self.sampling.max_new_tokens, self.objective.overlong_buffer)
        penalty = penalty.double().view(len(prompts), rollout.group_size, 1)
        return scores, torch.cat([components.to(self.device), penalty], dim=2)

    def component_weights(self) -> Tensor:
        """(R,) float64, the weight of each reward component; that of the length penalty is 1."""
        weights = component_weights(self.reward, self.objective.normalizes_components)
        return torch.cat([weights, weights.new_ones(1)]).to(self.device)

    def has_variance(self, rollouts: RolloutBatch) -> Tensor:
        """(B,) bool, which groups have an advantage other than zero on a completion that is trained on, and finite logits."""
        differ = self.objective.advantages(rollouts.reward_components, self.component_weights()) != 0
        if self.objective.mask_truncated_completions:
            differ &= rollouts.rollout.finished.view_as(differ)
        return differ.any(dim=1) & rollouts.kept

    def compute_advantages(self, rollouts: RolloutBatch) -> tuple[Tensor, Tensor]:
        """(B, G) advantages and (N, T) token weights, float32, of the kept groups; zero in the others."""
        if self.supervised:
            return right_samples(rollouts)
        rollout, kept = rollouts.rollout, rollouts.kept
        rows = kept.repeat_interleave(rollout.group_size)
        advantages = torch.zeros_like(rollouts.rewards, dtype=torch.float32)
        if kept.any():
            advantages[kept] = self.objective.advantages(rollouts.reward_components[kept], self.component_weights())
        counted = rollout.finished[rows] if self.objective.mask_truncated_completions else None
        weights, limit = torch.zeros_like(rollout.sampling_logps), self.sampling.max_new_tokens
        weights[rows] = token_weights(rollout.mask[rows], self.objective.loss_type, limit, counted)
        return advantages, weights

    def trainable_rows(self, rollout: Rollout, advantages: Tensor, weights: Tensor) -> Tensor:
        """(K,) int64, the rows that the loss depends on. A completion with zero advantage has no gradient, except from the KL or
        the entropy bonus, so leaving it out is exact."""
        trainable = weights.any(dim=1) & ((advantages.flatten() != 0) | self.objective.trains_zero_advantage)
        return trainable.nonzero().squeeze(1)

    def mask_low_entropy(self, rollout: Rollout, advantages: Tensor, weights: Tensor) -> Tensor:
        """(N, T) weights, set to zero except at the tokens of the highest entropy of the step; costs one more forward pass."""
        rows, budget = self.trainable_rows(rollout, advantages, weights), self.limits.token_budget
        mine, temperature = share_of_groups(rollout, rows, self.collective), self.sampling.temperature

        def attempt() -> Tensor:
            entropies = torch.full_like(weights, torch.nan)
            with torch.no_grad():
                for micro in pack(rollout, mine, budget.value):
                    _, entropies[micro.row_of, micro.column_of] = self.policy.log_probs(micro, temperature)
            return entropies

        entropies = fill_missing(halve_on_oom(budget, attempt), self.collective)
        among = torch.zeros_like(rollout.mask)
        among[rows] = rollout.mask[rows]
        return weights * high_entropy_mask(entropies, among, self.objective.top_entropy)

    def accumulate_gradients(
        self, rollout: Rollout, advantages: Tensor, weights: Tensor, logprobs: TrainerLogprobs, first: bool
    ) -> None:
        """Accumulate the gradient of the step's loss over micro-batches; it does not depend on how they are packed.

        Args:
            rollout, advantages, weights: N completions, (B, G), and (N, T), fixed for the whole step.
            logprobs: log-probs and entropies, filled in at the first update and read at the later ones.
            first: whether this is the first iteration, at which the policy is still the one that sampled.
        """
        objective = Objective() if self.supervised else self.objective
        temperature, budget = self.sampling.temperature, self.limits.token_budget
        rows = share_of_groups(rollout, self.trainable_rows(rollout, advantages, weights), self.collective)

        def attempt() -> StepMeter:
            self.policy.zero_grad()
            meter = StepMeter()
            for micro in pack(rollout, rows, budget.value):
                index = micro.row_of, micro.column_of
                logps, entropy = self.policy.log_probs(micro, temperature, objective.entropy_bonus > 0)
                if first:
                    logprobs.logps[index], logprobs.entropies[index] = logps.detach(), entropy.detach()
                    if not self.supervised:
                        meter.add("logprob_mismatch", (logps.detach() - rollout.sampling_logps[index]).abs().sum())
                inputs = LossInputs(
                    logps=logps,
                    old_logps=logps.detach() if self.supervised else logprobs.logps[index],
                    advantages=advantages.flatten()[micro.row_of],
                    weights=weights[index],
                    rows=micro.row_of,
                    sampling_logps=rollout.sampling_logps[index],
                    ref_logps=self.policy.reference_log_probs(micro, temperature) if objective.beta else None,
                    entropy=entropy,
                )
                out = policy_loss(inputs, objective)
                self.manual_backward(self.scaler.scale(out.loss))
                meter.add_all(entropy=entropy.detach().sum(), tokens=len(logps), loss=out.loss.detach(), **out.metrics)
            return meter

        for share in self.collective.gather(halve_on_oom(budget, attempt).sums):
            self.meter.add_all(**share)

    def on_fit_start(self) -> None:
        """Try the reward function on the policy's own completions, before anything takes long."""
        super().on_fit_start()
        self.collective.broadcast(lambda: try_reward(self))

    def settings(self) -> dict[str, str]:
        """The settings that a resumed run must share with its checkpoint, by dotted name."""
        return super().settings() | settings(objective=self.objective, reward=self.reward, sft_steps=self.sft_steps)
