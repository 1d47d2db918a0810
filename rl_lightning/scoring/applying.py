"""Apply a reward function to the completions of a rollout; what is wrong with it is one line."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from rl_lightning.objective import Objective
from rl_lightning.sandbox.users_code import said_by
from rl_lightning.scoring.reward import BatchReward, Reward
from rl_lightning.types import Problem, Rollout, Score, UserError

_SHOWN = 60
"""Characters of a question and of a completion that an error shows."""

Completions = Sequence[tuple[Problem, str, Score]]
"""Completions with their problems and scores."""


def component_weights(reward: Reward, separate: bool) -> Tensor:
    """(R,) float64, the weight of each column of `reward_components`.

    Args:
        reward: the reward function.
        separate: whether the components are kept separate; else the only one is their sum, with weight 1.
    """
    return torch.tensor(list(reward.weights) if separate else [1.0], dtype=torch.float64)


def reward_components(
    reward: Reward, separate: bool, problems: Sequence[Problem], texts: Sequence[str], scores: Sequence[Score]
) -> Tensor:
    """The reward components of N completions.

    Args:
        reward: the reward function.
        separate: whether the components are kept separate; else the only one is their sum.
        problems: the problem of each completion.
        texts: the completions.
        scores: the verifier's score of each completion.

    Returns:
        (N, R) float64, not weighted; NaN where the reward is None.

    Raises:
        UserError: the reward function raised something, the numbers of components and weights differ, or a reward is neither a
            finite number in float32 nor None.
    """
    completions = list(zip(problems, texts, scores, strict=True))
    weights, name = component_weights(reward, separate), name_of(reward)
    rows = _components(reward, completions) if separate else [(whole,) for whole in _rewards(reward, completions)]
    numbers: list[list[float]] = []
    for row, of in zip(rows, completions, strict=True):
        values = None if isinstance(row, str) or not hasattr(row, "__len__") else list(row)
        if values is None or len(values) != len(weights):
            found = _short(row) if values is None else f"{len(values)} components"
            raise _error(f"{name} gave {found} and has {len(weights)} weights", of)
        numbers.append([_number(name, value, of) for value in values])
    components = torch.tensor(numbers, dtype=torch.float64)
    finite = (components.nan_to_num() @ weights).float().isfinite()
    if not finite.all():
        raise _error(f"{name} gave a reward that is not a finite number", completions[int((~finite).nonzero()[0])])
    return components


def group_components(
    reward: Reward, objective: Objective, problems: Sequence[Problem], rollout: Rollout, scores: Sequence[Score]
) -> Tensor:
    """(B, G, R) float64, the reward components of B groups of G completions; where a reward is None the mean of its group's others,
    by which the completion's advantage is 0 and that of no other changes sign, and 0 where it is None for the whole group.

    Args:
        reward: the reward function.
        objective: says whether its components are kept separate, and what advantages compare.
        problems: the problem of each of the N completions.
        rollout: the completions.
        scores: the verifier's score of each completion.

    Raises:
        UserError: see `reward_components`; or a reward is None, and advantages compare completions of different groups.
    """
    components = reward_components(reward, objective.normalizes_components, problems, rollout.texts, scores)
    if "batch" in (objective.baseline, objective.scale_advantages) and bool(components.isnan().any()):
        raise UserError(
            f"model.reward: {name_of(reward)} gave None, which is nothing that groups can be compared by; set "
            "model.objective.baseline to group or leave_one_out, and model.objective.scale_advantages to group or none"
        )
    components = components.unflatten(0, (-1, rollout.group_size))
    return torch.where(components.isnan(), components.nanmean(dim=1, keepdim=True).nan_to_num(), components)


def _rewards(reward: Reward, completions: Completions) -> list[Any]:
    """The reward of each completion."""
    if not isinstance(reward, BatchReward):
        return _each(reward, reward, completions)
    columns = [list(column) for column in zip(*completions, strict=True)]
    found = _called(reward, partial(reward.of_all, *columns), None)
    if inspect.isawaitable(found):
        (found,) = _awaited([found])
        if isinstance(found, BaseException):
            raise _raised(reward, found, None) from found
    rewards = _called(reward, lambda: list(found), None)
    if len(rewards) != len(completions):
        raise _error(f"{name_of(reward)} gave {len(rewards)} rewards of {len(completions)} completions", None)
    return rewards


def _components(reward: Reward, completions: Completions) -> list[Any]:
    """The components of each completion's reward; a reward of a batch has one, the reward itself."""
    if isinstance(reward, BatchReward) and type(reward).components is Reward.components:
        return [(whole,) for whole in _rewards(reward, completions)]
    return _each(reward, reward.components, completions)


def _each(reward: Reward, function: Callable[..., Any], completions: Completions) -> list[Any]:
    """What the function returns for each completion; coroutines run at the same time."""
    values = [_called(reward, partial(function, *of), of) for of in completions]
    waiting = [at for at, value in enumerate(values) if inspect.isawaitable(value)]
    for at, value in zip(waiting, _awaited([values[at] for at in waiting]), strict=True):
        if isinstance(value, BaseException):
            raise _raised(reward, value, completions[at]) from value
        values[at] = value
    return values


def _called(reward: Reward, call: Callable[[], Any], of: tuple[Problem, str, Score] | None) -> Any:
    try:
        return call()
    except UserError:
        raise
    except Exception as error:  # whatever the user's own function raises
        raise _raised(reward, error, of) from error


def _awaited(waiting: Sequence[Awaitable[Any]]) -> list[Any]:
    """The results, or the exceptions, of all together. They run in a thread with a loop of its own, because a notebook's is running
    already."""

    async def caught(one: Awaitable[Any]) -> Any:
        try:
            return await one
        except BaseException as error:  # SystemExit would end the loop's thread, and this one would wait for ever
            return error

    async def together() -> list[Any]:
        return await asyncio.gather(*map(caught, waiting))

    return asyncio.run_coroutine_threadsafe(together(), _loop()).result() if waiting else []


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One loop for the whole run, because a server's client keeps its connections in the loop that it was made in."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rewards", daemon=True).start()
    return loop


def name_of(reward: Reward) -> str:
    """The class of a reward, or the function that it is made of."""
    return str(getattr(reward, "function", type(reward).__name__))


def _number(name: str, value: Any, of: tuple[Problem, str, Score]) -> float:
    """A reward as a number that is finite in float32, in which rewards are compared; NaN for None."""
    if value is None:
        return math.nan
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ):  # the last is torch's, of a tensor with several numbers
        number = math.nan
    if not abs(number) <= torch.finfo(torch.float32).max:
        raise _error(f"{name} gave {_short(value)} ({type(value).__name__}); it must be a finite number, or None", of)
    return number


def _short(value: Any) -> str:
    return shorten(repr(value), _SHOWN, placeholder="…")


def _raised(reward: Reward, error: BaseException, of: tuple[Problem, str, Score] | None) -> UserError:
    return error if isinstance(error, UserError) else _error(f"{name_of(reward)} raised {said_by(error)}", of)


def _error(what: str, of: tuple[Problem, str, Score] | None) -> UserError:
    """The mistake, and where it was made."""
    if of is None:
        return UserError(f"model.reward: {what}")
    problem, completion, _ = of
    question, written = (
        shorten(" ".join(text.split()), _SHOWN, placeholder="…") for text in (problem.question, completion)
    )
    return UserError(
        f"model.reward: {what}; task {problem.task}, problem {problem.index} ({question!r}), completion {written!r}"
    )
