"""A policy at work: completions of prompts, for training and for evaluation, and what they are worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rl_lightning.evaluation import Draws, draws_of
from rl_lightning.groups import Groups
from rl_lightning.metrics import Meter
from rl_lightning.objective import overlong_penalty
from rl_lightning.recovery import again_with_half
from rl_lightning.rollout import Sampling, sample_groups
from rl_lightning.scoring import Scorer
from rl_lightning.trainable_policy import TrainablePolicy
from rl_lightning.types import Problem, PromptBatch, Rollout, Score, UserError


class AnsweringPolicy(TrainablePolicy):
    """Samples and judges; `GRPOModule` learns from it.

    Attributes:
        eval_draws: how evaluations draw, None for greedily; `FixedEval` sets it.
        meter: sums and seconds of the step that is being made.
    """

    score_workers: int
    score_seconds: float
    meter: Meter
    eval_draws: Draws | None = None

    def setup(self, stage: str) -> None:
        """Scorers for the data module's tasks."""
        self.scorer = Scorer(self.trainer.datamodule.mixture, self.score_workers, self.score_seconds)  # type: ignore[attr-defined]

    def teardown(self, stage: str) -> None:
        """Stop their processes."""
        self.scorer.close()

    def roll(
        self,
        batch: PromptBatch,
        sampling: Sampling,
        draws: torch.Generator | Tensor | None,
        prompts_at_once: int | None = None,
    ) -> Rollout:
        """Completions by the policy as it is now; each is scored while the others are being written. See `sample_groups`."""
        policy, group = self.policy, 1 if draws is None else sampling.num_generations

        def ended(row: int, text: str) -> None:
            self.scorer.begin(batch.problems[row // group], text)

        ends, pad = policy.end_token_ids, policy.pad_token_id
        with policy.sampling() as model:
            return sample_groups(
                model, batch, sampling, ends, policy.decode_text, draws, pad, ended, prompts_at_once=prompts_at_once
            )

    @again_with_half("sampling.max_rollout_rows")
    def answer(self, batch: PromptBatch, draws: Draws | None) -> Rollout:
        """Completions for an evaluation, greedy or drawn, in no more memory than training needs: as many rows decode at once,
        as the plan allows, and as many prompts are kept as a training step has."""
        work, limit, most = self.plan.work, self.sampling.max_new_tokens, self.sampling.max_rollout_rows
        length = batch.prompt_ids.shape[1] + limit  # no problem is left out of an evaluation for its length
        self.policy.refuse_longer(length)
        rows = self.plan.eval_rows if most == "auto" else min(self.plan.eval_rows, most)
        rows = max(1, rows * min(length, work.prompt_tokens + limit) // length)
        sampling, drawn = replace(self.sampling, max_rollout_rows=rows), None
        if draws is not None:
            sampling = Sampling(draws.samples, limit, draws.temperature, max_rollout_rows=rows)
            drawn = draws_of(batch.problems, draws.samples, limit)
        return self.roll(batch, sampling, drawn, work.prompts)

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, Any]:
        """An evaluation's completions and their scores; random states stay as they are."""
        rollout = self.answer(batch, self.eval_draws)
        return {"rollout": rollout, "scores": self.scorer(self.asked(batch, rollout), rollout.texts)}

    def asked(self, batch: PromptBatch, rollout: Rollout) -> list[Problem]:
        """N problems, each completion's own."""
        return [problem for problem in batch.problems for _ in range(rollout.group_size)]

    def answered(self, batch: PromptBatch) -> Groups:
        """A group of completions a prompt, and what each earned."""
        with self.meter.time("sample"):
            rollout = self.sample(batch, self.generator)
        with self.meter.time("score"):
            scores, parts = self.judge(batch, rollout)
        return Groups(batch, rollout, scores, parts, parts @ self.part_weights(), parts.new_ones(len(parts)).bool())

    @again_with_half("sampling.max_rollout_rows")
    def sample(self, batch: PromptBatch, generator: torch.Generator) -> Rollout:
        """A group of completions a prompt; the generator moves on when it has them."""
        draws = generator.clone_state()
        rollout = self.roll(batch, self.sampling, draws)
        generator.set_state(draws.get_state())
        return rollout

    def judge(self, batch: PromptBatch, rollout: Rollout) -> tuple[tuple[Score, ...], Tensor]:
        """N scores and (B, G, R) float64 parts of rewards, the last one the penalty for length."""
        problems = self.asked(batch, rollout)
        scores = self.scorer(problems, rollout.texts)
        each = zip(problems, rollout.texts, scores, strict=True)
        earned = [tuple(self.reward.parts(*x)) if self.by_parts else (self.reward(*x),) for x in each]
        weights, name = self.part_weights()[:-1].cpu(), type(self.reward).__name__
        if wrong := {len(parts) for parts in earned} - {len(weights)}:
            raise UserError(f"model.reward: {name} gave {wrong.pop()} parts and has {len(weights)} weights")
        parts = torch.tensor(earned, dtype=torch.float64)
        if not torch.cat([parts, parts @ weights[:, None]], dim=1).float().isfinite().all():
            raise UserError(f"model.reward: {name} gave a reward that is not a finite number")
        penalty = overlong_penalty(rollout.lengths, self.sampling.max_new_tokens, self.objective.overlong_buffer)
        parts = torch.cat([parts.to(self.device), penalty[:, None].double()], dim=1)
        return tuple(scores), parts.view(len(batch.problems), rollout.group_size, -1)

    def part_weights(self) -> Tensor:
        """(R,) float64, what each part of a reward counts."""
        weights = self.reward.weights if self.by_parts else (1.0,)
        return torch.tensor([*weights, 1.0], dtype=torch.float64, device=self.device)

    @property
    def by_parts(self) -> bool:
        """Whether a reward is asked for its parts, or only for their sum."""
        return self.objective.reward_aggregation == "normalize_then_sum"
