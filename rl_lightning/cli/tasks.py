"""The command `python -m rl_lightning tasks`: all; or of one its problems, its levels, a prompt, or what its verifier says."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rl_lightning.cli.arguments import of_tasks
from rl_lightning.cli.quiet import loading

if TYPE_CHECKING:
    from rl_lightning.cli.single_prompt import Settings

_VALUED = ("--check", "--index", "--verifier", "--expected")
"""This command's own arguments that have a value, and are none of `fit`."""


def main(words: Sequence[str]) -> None:
    """Print what is asked for.

    Raises:
        UserError: a mistake on the command line or in the config, or no such task.
    """
    args, others = of_tasks(words)
    print(answer_to(args, _without_own(words, args.name) if args.config else others), flush=True)


def answer_to(args: argparse.Namespace, of_fit: Sequence[str]) -> str:
    """What the command prints."""
    if args.config is None and args.check is None:
        return _of_reasoning_gym(args.name, args.levels)
    with loading("torch and transformers"):
        from rl_lightning.cli.single_prompt import Settings, prompt_of
        from rl_lightning.cli.verdicts import check, check_by, describe_own, read_verifier
        from rl_lightning.environments.mixture import TaskSpec
        from rl_lightning.environments.reasoning_gym.catalogue import describe_levels
        from rl_lightning.types import Problem

    if args.expected is not None:
        settings = _settings(of_fit) if args.config else Settings()
        return check_by(read_verifier(args.verifier), settings, Problem("", args.expected), args.check)
    settings = _settings(of_fit) if args.config else Settings(datasets={args.name: TaskSpec()})
    if args.levels:
        mixture = settings.mixture(args.name)
        return describe_levels(args.name, mixture.tasks[args.name], mixture.own_levels[args.name])
    if args.check is not None:
        problem = settings.problem(args.name, args.index or 0)
        if args.verifier is not None:
            return check_by(read_verifier(args.verifier), settings, problem, args.check)
        return check(settings, problem, args.check)
    return prompt_of(args.name, settings) if args.prompt else describe_own(settings, args.name)


def _of_reasoning_gym(name: str | None, levels: bool) -> str:
    """All of its tasks; or one, or that one's levels. Needs no torch."""
    from rl_lightning.environments.reasoning_gym.catalogue import catalogue, describe, describe_levels
    from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask

    if name is None:
        return catalogue()
    return describe_levels(name, ReasoningGymTask(name, {})) if levels else describe(name)


def _without_own(words: Sequence[str], name: str | None) -> list[str]:
    """The words without those of this command, in their order, because of two settings `fit` takes the later."""
    left, named, rest = iter(words), False, []
    for word in left:
        if word in _VALUED:
            next(left)
        elif word == name and not named:
            named = True
        elif word not in ("--prompt", "--levels") and not word.startswith(tuple(f"{each}=" for each in _VALUED)):
            rest.append(word)
    return rest


def _settings(words: Sequence[str]) -> Settings:
    """Read the settings of `fit` with these arguments."""
    from rl_lightning.cli.read_only import PromptCommandLine  # takes seconds

    sys.argv = [sys.argv[0], "fit", *words]
    return PromptCommandLine().settings
