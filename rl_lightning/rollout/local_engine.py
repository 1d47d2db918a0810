"""The rollout engine that samples from the policy itself, in the trainer's process and on its device."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from rl_lightning.memory import (
    Device,
    HeldModel,
    MemoryLimits,
    PlannedSettings,
    RolloutMemory,
    StepShape,
    halve_on_oom,
)
from rl_lightning.memory.limits import Limit
from rl_lightning.memory.plan import Plan
from rl_lightning.policy import Policy
from rl_lightning.rollout.decode import sample_groups
from rl_lightning.rollout.decode_state import StateShape, whole_eights
from rl_lightning.rollout.engine import OnFinished, RolloutEngine
from rl_lightning.rollout.kept_graphs import KeptGraphs
from rl_lightning.rollout.memory import planned_eval_rows, rollout_memory
from rl_lightning.rollout.policy_decoder import decoder_of
from rl_lightning.rollout.sampling import Sampling
from rl_lightning.rollout.steps import Eager, launch_of
from rl_lightning.types import PromptBatch, Rollout


class LocalEngine:
    """Samples from the policy's own weights; the default.

    Attributes:
        decoder: the model as it decodes; from `start` on.
    """

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._evaluator = LocalEvaluator(self)

    def memory(self, model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device) -> RolloutMemory:
        """The memory of rollouts, in bytes; see `RolloutEngine`."""
        return rollout_memory(model, step, settings, device)

    def evaluator(self) -> RolloutEngine:
        """The same with limits of its own; see `RolloutEngine`."""
        return self._evaluator

    def start(self, policy: Policy, plan: Plan | None = None, limits: MemoryLimits | None = None) -> None:
        """Build the decoder; see `RolloutEngine`. Without a plan, rollouts run on a merged copy, and all rows decode at once."""
        if self._policy is not policy:
            self._policy, self._plan, self._limits = policy, plan, limits
            self.decoder = decoder_of(policy, merged=plan is None or plan.settings.merged)
            self._graphs = self._planned_graphs(policy)
            self._evaluator.graphs = self._graphs.unkept("evaluations")
            if limits is not None:
                limits.rollout_rows.first, limits.token_budget.first = self._graphs.give_up, self._graphs.stop_keeping
                limits.eval_rows.first = self._evaluator.graphs.give_up

    def _planned_graphs(self, policy: Policy) -> KeptGraphs:
        """How decode steps are run. Without a plan nothing is kept, because the update might need the memory."""
        launch = launch_of(self.decoder.devices, self.decoder.uncapturable)
        if self._plan is None:
            return KeptGraphs(launch)
        step, planned = self._plan.step, self._plan.settings
        if planned.graphs == 0:
            return KeptGraphs(Eager)
        width, slots = step.new_tokens + launch.sync_interval, min(planned.max_rollout_rows, step.rows)
        shape = StateShape(step.rows, slots, whole_eights(step.prompt_tokens + width), width)
        return KeptGraphs(launch, planned.graphs, shape if planned.keep_graphs else None, policy.model.parameters)

    def sync_weights(self) -> None:
        """Read the policy's weights again; see `RolloutEngine`."""
        self.decoder.refresh()

    def generate(
        self, prompts: PromptBatch, sampling: Sampling, draws: Tensor | None, on_finished: OnFinished | None = None
    ) -> Rollout:
        """Sample completions; see `RolloutEngine`. If memory runs out, CUDA graphs are given up, then `rollout_rows` is halved, and
        all rows are sampled again."""
        limit = None if self._limits is None else self._limits.rollout_rows
        return self._within(limit, self._graphs, prompts, sampling, draws, on_finished)

    def evaluate(
        self, prompts: PromptBatch, sampling: Sampling, draws: Tensor | None, on_finished: OnFinished | None
    ) -> Rollout:
        """The same for an evaluation: if memory runs out, graphs and rows of rollouts stay as they are."""
        self._graphs.release()
        limit = None if self._limits is None else self._limits.eval_rows
        return self._within(limit, self._evaluator.graphs, prompts, sampling, draws, on_finished)

    def _within(
        self,
        limit: Limit | None,
        graphs: KeptGraphs,
        prompts: PromptBatch,
        sampling: Sampling,
        draws: Tensor | None,
        on_finished: OnFinished | None,
    ) -> Rollout:
        """Sample within a limit, and what the plan allows to more prompts, more rows or longer sequences than a step's."""
        policy, plan = self._policy, self._plan
        assert policy is not None, "start comes first"
        rows = len(prompts) * (1 if draws is None else sampling.num_generations)
        exceeds = plan is not None and self._exceeds_plan(prompts, rows, sampling)
        prompts_at_once = plan.step.prompts if plan is not None and exceeds else None
        arguments = policy.eos_token_ids, policy.decode_text, draws, policy.pad_token_id, on_finished, graphs

        def attempt() -> Rollout:
            how = sampling if limit is None else replace(sampling, max_rollout_rows=limit.value)
            how = self._within_plan(prompts, how) if exceeds else how
            with self.decoder.ready():
                return sample_groups(self.decoder, prompts, how, *arguments, prompts_at_once)

        return attempt() if limit is None else halve_on_oom(limit, attempt)

    def _exceeds_plan(self, prompts: PromptBatch, rows: int, sampling: Sampling) -> bool:
        """Whether there are more prompts, more rows or longer sequences than in a training step, as an evaluation may have."""
        assert self._plan is not None
        step, length = self._plan.step, prompts.prompt_ids.shape[1] + sampling.max_new_tokens
        return len(prompts) > step.prompts or rows > step.rows or length > step.prompt_tokens + step.new_tokens

    def _within_plan(self, prompts: PromptBatch, sampling: Sampling) -> Sampling:
        """The same sampling, with fewer rows at once, so that it needs no more memory than a training step's rollout.

        The cache then holds the keys and values of as many prompts as a training step has.
        """
        plan, max_rows = self._plan, sampling.max_rollout_rows
        assert plan is not None
        rows = planned_eval_rows(plan)
        rows = rows if max_rows == "auto" else min(rows, max_rows)
        length, planned = prompts.prompt_ids.shape[1] + sampling.max_new_tokens, plan.step
        rows = max(1, rows * min(length, planned.prompt_tokens + planned.new_tokens) // length)
        return replace(sampling, max_rollout_rows=rows)

    def close(self) -> None:
        """Drop what is kept between rollouts; the decoder stays for the next stage. See `RolloutEngine`."""
        if self._policy is not None:
            self._graphs.release()


class LocalEvaluator:
    """Evaluates by the decoder of a `LocalEngine`, with rows and CUDA graphs of its own.

    Args:
        engine: whose `start` and `close` are its own too.

    Attributes:
        graphs: how its steps are run; from the engine's `start` on.
    """

    graphs: KeptGraphs

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def memory(self, model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device) -> RolloutMemory:
        """That of the engine's rollouts, which is no less; see `RolloutEngine`."""
        return self._engine.memory(model, step, settings, device)

    def evaluator(self) -> RolloutEngine:
        """This one; see `RolloutEngine`."""
        return self

    def start(self, policy: Policy, plan: Plan | None = None, limits: MemoryLimits | None = None) -> None:
        """Nothing to do; see `RolloutEngine`."""

    def sync_weights(self) -> None:
        """Read the policy's weights again; see `RolloutEngine`."""
        self._engine.sync_weights()

    def generate(
        self, prompts: PromptBatch, sampling: Sampling, draws: Tensor | None, on_finished: OnFinished | None = None
    ) -> Rollout:
        """Sample completions; see `RolloutEngine`. If memory runs out, CUDA graphs are given up, then `eval_rows` is halved."""
        return self._engine.evaluate(prompts, sampling, draws, on_finished)

    def close(self) -> None:
        """Nothing to do; see `RolloutEngine`."""
