"""Try a reward function before training, so that its mistakes are known before the first evaluation, and not after it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from rl_lightning.environments.answer_formats import AnswerFormat
from rl_lightning.scoring import WeightedReward, reward_components
from rl_lightning.scoring.applying import name_of
from rl_lightning.types import Problem, PromptBatch, UserError

log = logging.getLogger(__name__)

_TASKS = 8
"""The most tasks of which a problem is tried."""

_NEW_TOKENS = 32
"""The longest of the trial's completions: a reward must cope with truncated ones too."""


def try_reward(module: Any) -> None:
    """Give rewards to the first tokens of the policy's own completions, to nothing, and to right answers, for some tasks' problems.

    Args:
        module: the GRPOModule, set up. Nothing is tried of the package's own reward, or where the data module has no
            `eval_batches`.

    Raises:
        UserError: what is wrong with the reward function, and for which task, problem and completion.
    """
    reward, source, sampling = module.reward, module.prompt_source, module.sampling
    if type(reward) is WeightedReward or not hasattr(source, "eval_batches"):
        return
    if (first := next(iter(source.eval_batches()), None)) is None:
        return
    batch = _first_of_each_task(first)
    short = replace(sampling, max_new_tokens=min(_NEW_TOKENS, sampling.max_new_tokens))
    module.evaluator.sync_weights()
    sampled = module.evaluator.generate(batch.to(module.device), short, None).texts
    problems = [*batch.problems] * 3
    right = [_right(each, source.answer_format) for each in batch.problems]
    texts = [*sampled, *(source.opening for _ in sampled), *(_begun(text, source.opening) for text in right)]
    separate, scores = module.objective.normalizes_components, module.scorer(problems, texts)
    rewards = reward_components(reward, separate, problems, texts, scores)
    if bool(rewards.isnan().all()):
        log.warning(f"model.reward: {name_of(reward)} gave None for each of {len(texts)} completions it was tried on")


def _begun(text: str, opening: str) -> str:
    """A completion with what every prompt has already opened of it."""
    return text if text.startswith(opening) else opening + text


def _first_of_each_task(batch: PromptBatch) -> PromptBatch:
    """The prompts of the first problem of each of the first tasks."""
    rows = {problem.task: row for row, problem in reversed(list(enumerate(batch.problems)))}
    chosen = sorted(rows.values())[:_TASKS]
    problems = tuple(batch.problems[row] for row in chosen)
    return replace(
        batch, problems=problems, prompt_ids=batch.prompt_ids[chosen], prompt_lengths=batch.prompt_lengths[chosen]
    )


def _right(problem: Problem, answers: AnswerFormat) -> str:
    """A completion with the expected answer, as the format wants it."""
    try:
        return answers.write("", problem.expected or "")
    except UserError:  # the format cannot write it
        return problem.expected or ""
