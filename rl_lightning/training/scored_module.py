"""A module whose completions are scored by their tasks' verifiers, in evaluations as in training."""

from __future__ import annotations

from typing import Any

from rl_lightning.evaluation import EvalSampling, problem_draws
from rl_lightning.rollout import OnFinished, Sampling
from rl_lightning.scoring import Scorer
from rl_lightning.training.adapter_module import AdapterModule
from rl_lightning.training.non_finite import wrong_if_not_finite
from rl_lightning.types import EvalBatch, PromptBatch, require


class ScoredModule(AdapterModule):
    """An AdapterModule with a scorer, that evaluates. The training step is defined by its subclass.

    Args:
        score_workers: number of processes that verify answers; at least 1.
        score_seconds: time limit of an answer's verifier, in seconds; above 0.
        of_policy: the arguments of `AdapterModule`.

    Attributes:
        scorer: runs the tasks' verifiers; from `setup` on.
        eval_sampling: how evaluations sample; None for greedy decoding; `FixedEval` sets it.
    """

    scorer: Scorer

    def __init__(self, score_workers: int, score_seconds: float, **of_policy: Any) -> None:
        super().__init__(**of_policy)
        require("model.score_workers", score_workers, score_workers > 0, "above 0")
        require("model.score_seconds", score_seconds, score_seconds > 0, "above 0")
        self.score_workers, self.score_seconds = score_workers, score_seconds
        self.eval_sampling: EvalSampling | None = None

    def scoring_callback(self, prompts: PromptBatch, group: int) -> OnFinished:
        """A hook that starts to verify each finished completion while others are still being sampled."""
        return lambda row, text: self.scorer.submit(prompts.problems[row // group], text)

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> EvalBatch:  # type: ignore[override]
        """Completions of evaluation problems and their scores. Long prompts are not skipped, and RNG states do not change."""
        sampling, draws, limit = self.sampling, None, self.sampling.max_new_tokens
        self.policy.refuse_longer(batch.prompt_ids.shape[1] + limit)
        if (eval_sampling := self.eval_sampling) is not None:
            sampling = Sampling(eval_sampling.samples, limit, eval_sampling.temperature)
            draws = problem_draws(batch.problems, eval_sampling.samples, limit)
        group = 1 if draws is None else sampling.num_generations
        self.evaluator.sync_weights()
        rollout = self.evaluator.generate(batch, sampling, draws, self.scoring_callback(batch, group))
        scores = self.scorer(batch.repeat_problems(group), rollout.texts)
        return EvalBatch(rollout, wrong_if_not_finite(scores, rollout))

    def setup(self, stage: str) -> None:
        """Read the data module from the trainer, and make the scorer of its tasks."""
        super().setup(stage)
        source = self.prompt_source
        self.scorer = Scorer(source.mixture, self.score_workers, self.score_seconds, source.answer_format)

    def teardown(self, stage: str) -> None:
        """Stop the scorer's worker processes."""
        self.scorer.close()
        self.engine.close()
