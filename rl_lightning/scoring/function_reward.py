"""A plain function as a reward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rl_lightning.scoring.reward import BatchReward, Reward
from rl_lightning.types import Problem, Score, UserError

_ONE = ("problem", "completion", "score")
_ALL = ("problems", "completions", "scores")


def as_reward(reward: Reward | Callable[..., Any]) -> Reward:
    """The reward itself, or that of a plain function; see `function_reward`."""
    return reward if isinstance(reward, Reward) else function_reward(reward)


def function_reward(function: Callable[..., Any]) -> Reward:
    """The reward that a function gives to one completion, or to all completions of a rollout, as its parameters' names say.

    Args:
        function: takes any of `problem`, `completion` and `score` (see `Reward.__call__`), or any of `problems`, `completions` and
            `scores` (see `BatchReward.of_all`), by name; it may be a coroutine function.

    Raises:
        UserError: it takes none of them, some of both, or needs another parameter.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # no function; or one whose parameters nobody knows, such as max
        raise UserError(
            f"model.reward: {_name(function)} is neither a Reward nor a function with parameters by name"
        ) from None
    named = {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    starred = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = {each.name for each in parameters if each.default is each.empty and each.kind not in starred}
    for names, kind in ((_ONE, FunctionReward), (_ALL, BatchFunctionReward)):
        if named & set(names) and needed <= set(names):
            takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters)
            return kind(function, [name for name in names if takes_all or name in named])
    raise UserError(
        f"model.reward: the function {_name(function)} takes {', '.join(sorted(named | needed)) or 'nothing'}; a reward function "
        f"takes any of {', '.join(_ONE)}, or, for all completions at once, any of {', '.join(_ALL)}"
    )


class _OfFunction:
    """A function that is given those arguments that its parameters are named for.

    Args:
        function: the function.
        names: those of its parameters that it is given.
    """

    def __init__(self, function: Callable[..., Any], names: Sequence[str]) -> None:
        self.function, self._function, self._names = _name(function), function, names

    def _call(self, **given: Any) -> Any:
        return self._function(**{name: given[name] for name in self._names})


class FunctionReward(_OfFunction, Reward):
    """A function of one completion; see `function_reward`."""

    def __call__(self, problem: Problem, completion: str, score: Score) -> Any:
        """What the function returns."""
        return self._call(problem=problem, completion=completion, score=score)


class BatchFunctionReward(_OfFunction, BatchReward):
    """A function of all completions of a rollout; see `function_reward`."""

    def of_all(self, problems: Sequence[Problem], completions: Sequence[str], scores: Sequence[Score]) -> Any:
        """What the function returns."""
        return self._call(problems=problems, completions=completions, scores=scores)


def _name(function: Any) -> str:
    """The path of a function, with what a partial gives it; of another object its class, and its public attributes."""
    if isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{name}={value!r}" for name, value in function.keywords.items())]
        return f"{_name(function.func)}({', '.join(given)})"
    if hasattr(function, "__qualname__"):
        return f"{function.__module__}.{function.__qualname__}"
    public = {name: value for name, value in getattr(function, "__dict__", {}).items() if not name.startswith("_")}
    shown = ", ".join(f"{name}={value!r}" for name, value in public.items()) if public else repr(function)[:60]
    return f"{type(function).__module__}.{type(function).__qualname__}({shown})"
