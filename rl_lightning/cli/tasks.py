"""The command `python -m rl_lightning tasks`: all; or of one its problems, its levels, a prompt, or what its verifier says."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rl_lightning.cli.command_parser import CommandParser
from rl_lightning.cli.single_prompt import Settings, prompt_of
from rl_lightning.cli.verdicts import check, check_by, describe_own, read_verifier
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.environments.reasoning_gym.catalogue import catalogue, describe, describe_levels
from rl_lightning.types import Problem

_VALUED = ("--check", "--index", "--verifier", "--expected")
"""This command's own arguments that have a value, and are none of `fit`."""


def main(words: Sequence[str]) -> None:
    """Print what is asked for.

    Raises:
        UserError: a mistake on the command line or in the config, or no such task.
    """
    args, others = arguments(words)
    print(answer_to(args, _without_own(words, args.name) if args.config else others), flush=True)


def arguments(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own arguments, and the others, which with --config are those of `fit`.

    Raises:
        UserError: they are not valid.
    """
    parser = CommandParser("tasks", "All tasks; or one with its settings and two problems.")
    parser.add_argument("name", nargs="?", help="the task")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--levels", action="store_true", help="the task's difficulty levels, of --config if there is one"
    )
    shown.add_argument("--prompt", action="store_true", help="a problem exactly as the model of --config reads it")
    shown.add_argument("--check", metavar="ANSWER", help="what the verifier says of this answer, and why")
    parser.add_argument(
        "--verifier", help="check by this one: Number, my_package.MyVerifier, or YAML with class_path, init_args"
    )
    parser.add_argument(
        "--expected", metavar="TEXT", help="with --verifier, in place of a task: the answer that is expected"
    )
    parser.add_argument("--index", type=int, help="number of the problem for --check; default: 0")
    parser.add_argument("--config", action="append", help="the settings; several, and --model… and --data…, as for fit")
    args, others = parser.parse_known_args(words)
    _check_verifier(parser, args)
    if args.name is None and args.expected is None and len(words) > 0:
        parser.error("this is about one task; name it, e.g. tasks spell_backward --levels")
    if args.prompt and args.config is None:
        parser.error("--prompt and --config FILE belong together")
    if args.index is not None and (args.check is None or args.index < 0):
        parser.error("--index is the number of a problem, 0 or more, and needs --check")
    if others and args.config is None:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return args, others


def _check_verifier(parser: CommandParser, args: argparse.Namespace) -> None:
    """Raise an error where a verifier is to be tried and something is missing, or too much."""
    if args.verifier is None:
        if args.expected is not None:
            parser.error("--expected needs --verifier, such as --verifier Number")
    elif args.check is None:
        parser.error("--verifier needs an answer to check, by --check ANSWER")
    elif args.name is None and args.expected is None:
        parser.error("--verifier needs a task by its name, or --expected TEXT in place of one")
    elif args.expected is not None and (args.name is not None or args.index is not None):
        parser.error("--expected stands in place of a task's problem; leave out the task's name and --index")


def answer_to(args: argparse.Namespace, of_fit: Sequence[str]) -> str:
    """What the command prints."""
    if args.expected is not None:
        settings = _settings(of_fit) if args.config else Settings()
        return check_by(read_verifier(args.verifier), settings, Problem("", args.expected), args.check)
    if args.name is None:
        return catalogue()
    if args.config is None and args.check is None and not args.levels:
        return describe(args.name)
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
    from rl_lightning.cli.lightning_cli import PromptCommandLine  # takes seconds

    sys.argv = [sys.argv[0], "fit", *words]
    return PromptCommandLine().settings
