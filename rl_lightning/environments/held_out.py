"""What is held out of training, for the evaluation and as worked examples, and what is left of each task."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from rl_lightning.environments.environment import Environment, GenerationFailed
from rl_lightning.environments.finite import EpochOrder
from rl_lightning.environments.mixture import EnvironmentMixture
from rl_lightning.environments.prompts import JOINTS, PromptTemplate
from rl_lightning.environments.question_hash import UNKNOWN, QuestionTable, as_numbers, question_hash
from rl_lightning.environments.stream import ATTEMPTS, MakeProblem, item_seed
from rl_lightning.types import UserError


def held_out_share(
    mixture: EnvironmentMixture,
    seed: int,
    held_out: frozenset[bytes],
    candidates: int = 64,
    seconds: float = 1.0,
    make: MakeProblem | None = None,
) -> dict[str, float]:
    """Estimate, for each task or each of its levels, the share of training candidates whose question is held out.

    Args:
        mixture: the environments.
        seed: seed of the training stream.
        held_out: hashes of the evaluation's questions.
        candidates: size of the sample for each task or level, at most.
        seconds: time limit of a task's sample, because some tasks take a quarter of a second per problem.
        make: generates a problem; by default the mixture, in this process.

    Returns:
        share by name, such as "chain_sum", or for a task with levels "chain_sum, level 0"; none for a task with a limited number of
        problems.
    """
    shares: dict[str, float] = {}
    for name in (name for name, task in mixture.tasks.items() if task.size is None):
        levels: list[int | None] = list(range(len(mixture.levels_of.get(name, ())))) or [None]
        for level in levels:
            hits, made, start = 0, 0, time.monotonic()
            for slot in range(candidates):
                if slot >= 2 and time.monotonic() - start > seconds / len(levels):
                    break
                try:
                    sampled_seed = item_seed("train", seed, slot, ATTEMPTS - 1)
                    problem = (make or mixture.problem)(name, sampled_seed, slot, level)
                except GenerationFailed:
                    continue
                hits += question_hash(problem.question) in held_out
                made += 1
            label = name if level is None else f"{name}, level {level}"
            shares[label] = hits / made if made else 0.0
    return shares


def small_tasks(shares: Mapping[str, float]) -> Iterator[str]:
    """A warning for each task of which the evaluation holds out a large share.

    Args:
        shares: of `held_out_share`.

    Raises:
        UserError: nothing is left of a task.
    """
    for task, share in shares.items():
        if share == 1:
            raise UserError(
                f"datasets.{task}: nothing left to train on: every problem is held out for evaluation; widen the task's config or "
                "lower data.eval_num_samples"
            )
        if share > 0.01:
            yield f"datasets.{task}: {share:.0%} of its problems are held out for evaluation: a small task"


def epoch_orders(
    mixture: EnvironmentMixture, seed: int, held_out: frozenset[bytes], template: PromptTemplate, max_prompt_tokens: int
) -> dict[str, EpochOrder]:
    """The orders of the tasks with a limited number of problems.

    Args:
        mixture: the environments.
        seed: selects the stream.
        held_out: `question_hash` of every problem that must not appear.
        template: of the prompts, the longest one if there are several.
        max_prompt_tokens: problems with a longer prompt are left out.

    Raises:
        UserError: nothing is left of a task.
    """
    orders = {}
    for task, environment in mixture.tasks.items():
        if environment.size is None:
            continue
        table, own = environment.table(), environment.eval_items
        is_free = ~np.isin(table.hashes, as_numbers(held_out)) & (table.length != UNKNOWN)
        if own is not None:
            is_free[own.start : own.stop] = False
        usable = is_free & _is_short(environment, table, template, max_prompt_tokens, task, np.flatnonzero(is_free))
        if not usable.any():
            raise UserError(
                f"datasets.{task}: nothing left to train on: of {len(usable)} problems {np.sum(~is_free)} are held out for "
                f"evaluation, shown as examples or fail, and {np.sum(is_free)} are longer than max_prompt_tokens; give more "
                "problems, lower data.eval_num_samples or raise data.max_prompt_tokens"
            )
        orders[task] = EpochOrder(np.flatnonzero(usable), f"{task}:{seed}")
    return orders


def _is_short(
    environment: Environment,
    table: QuestionTable,
    template: PromptTemplate,
    limit: int,
    task: str,
    numbers: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """(N,) whether the prompt of a question, one of `numbers`, has at most `limit` tokens. Only where it is close to that, the
    prompt is made."""

    def question(number: int) -> str:
        return environment.problem(number).question

    room = limit - template.tokens_around(task)
    short = table.most_tokens(template.tokenizer) <= room - JOINTS
    unsure = numbers[~short[numbers]]
    tokens = table.tokens(template.tokenizer, unsure, question)
    short[unsure[tokens <= room - JOINTS]] = True
    for number in unsure[(tokens > room - JOINTS) & (tokens <= room + JOINTS)]:
        short[number] = len(template.token_ids(question(int(number)), task)) <= limit
    return short


def few_problems(orders: Mapping[str, EpochOrder], mixture: EnvironmentMixture, prompts_per_step: int) -> Iterator[str]:
    """A warning for each task that has fewer problems than a step asks it for."""
    total = sum(mixture.weights.values())
    for task, order in orders.items():
        asked = prompts_per_step * mixture.weights[task] / total
        if len(order.items) < asked:
            yield (
                f"datasets.{task}: only {len(order.items)} problems to train on, of which a step asks {asked:.3g}: they repeat "
                "within a step"
            )
