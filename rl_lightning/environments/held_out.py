"""What is held out of training, for the evaluation and as worked examples, and what is left of each task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from rl_lightning.environments.environment import GenerationFailed
from rl_lightning.environments.finite import EpochOrder
from rl_lightning.environments.mixture import EnvironmentMixture
from rl_lightning.environments.stream import ATTEMPTS, MakeProblem, item_seed, question_hash
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
                hits += question_hash(name, problem.question) in held_out
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
    mixture: EnvironmentMixture, seed: int, held_out: frozenset[bytes], is_short: Callable[[str, str], bool]
) -> dict[str, EpochOrder]:
    """The orders of the tasks with a limited number of problems.

    Args:
        mixture: the environments.
        seed: selects the stream.
        held_out: `question_hash` of every problem that must not appear.
        is_short: whether the prompt of a task's question is within the limit.

    Raises:
        UserError: nothing is left of a task.
    """
    orders = {}
    for task, environment in mixture.tasks.items():
        if environment.size is None:
            continue
        asked = [environment.problem(number).question for number in range(environment.size)]
        free = [n for n, question in enumerate(asked) if question_hash(task, question) not in held_out]
        usable = [n for n in free if is_short(task, asked[n])]
        if not usable:
            raise UserError(
                f"datasets.{task}: nothing left to train on: of {len(asked)} problems {len(asked) - len(free)} are held out for "
                f"evaluation or shown as examples, and {len(free)} are longer than max_prompt_tokens; give more problems, lower "
                "data.eval_num_samples or raise data.max_prompt_tokens"
            )
        orders[task] = EpochOrder(usable, f"{task}:{seed}")
    return orders


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
