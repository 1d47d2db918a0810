"""Apply a reward function to the completions of a rollout; what is wrong with it is one line."""

from __future__ import annotations

import asyncio
import inspect
import numbers
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from rl_lightning.sandbox.users_code import said_by
from rl_lightning.scoring.reward import BatchReward, Reward
from rl_lightning.types import Problem, Score, UserError

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
    for row, of in zip(rows, completions, strict=True):
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != len(weights):
            found = f"{len(row)} components" if isinstance(row, Sequence) else repr(row)
            raise _error(f"{name} gave {found} and has {len(weights)} weights", of)
        for value in row:
            if value is not None and not _is_number(value):
                raise _error(f"{name} gave {value!r} ({type(value).__name__}); it must be a number, or None", of)
    components = torch.tensor(
        [[torch.nan if v is None else float(v) for v in row] for row in rows], dtype=torch.float64
    )
    known = torch.tensor([[value is not None for value in row] for row in rows])
    sums = torch.where(known, components, 0) @ weights
    finite = (components.float().isfinite() | ~known).all(dim=1) & sums.float().isfinite()
    if not finite.all():
        raise _error(f"{name} gave a reward that is not a finite number", completions[int((~finite).nonzero()[0])])
    return components


def group_components(
    reward: Reward,
    separate: bool,
    problems: Sequence[Problem],
    texts: Sequence[str],
    scores: Sequence[Score],
    groups: int,
) -> Tensor:
    """(B, G, R) float64, the reward components of B groups of G completions; where a reward is None the mean of its group's others,
    by which the completion's advantage is 0 and that of no other changes sign, and 0 where it is None for the whole group.

    Args:
        reward, separate, problems, texts, scores: see `reward_components`.
        groups: B.

    Raises:
        UserError: see `reward_components`.
    """
    components = reward_components(reward, separate, problems, texts, scores).view(
        groups, -1, len(component_weights(reward, separate))
    )
    return torch.where(components.isnan(), components.nanmean(dim=1, keepdim=True).nan_to_num(), components)


def _rewards(reward: Reward, completions: Completions) -> list[Any]:
    """The reward of each completion."""
    if not isinstance(reward, BatchReward):
        return _each(reward, reward, completions)
    columns = [list(column) for column in zip(*completions, strict=True)]
    found = _called(reward, partial(reward.of_all, *columns), None)
    if inspect.isawaitable(found):
        (found,) = _awaited([found])
        if isinstance(found, Exception):
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
        if isinstance(value, Exception):
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

    async def together() -> list[Any]:
        return await asyncio.gather(*waiting, return_exceptions=True)

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


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) or (isinstance(value, Tensor) and value.numel() == 1)


def _raised(reward: Reward, error: Exception, of: tuple[Problem, str, Score] | None) -> UserError:
    return _error(f"{name_of(reward)} raised {said_by(error)}", of)


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
