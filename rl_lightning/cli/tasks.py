"""The command `python -m rl_lightning tasks`: the tasks; or one with its settings and problems, its levels, or a prompt of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rl_lightning.cli.command_parser import CommandParser
from rl_lightning.cli.single_prompt import Settings, prompt_of
from rl_lightning.environments.reasoning_gym.catalogue import catalogue, describe, describe_levels


def main(words: Sequence[str]) -> None:
    """Print what is asked for.

    Raises:
        UserError: a mistake on the command line or in the config, or no such task.
    """
    parser = CommandParser("tasks", "All tasks; or one with its settings and two problems.")
    parser.add_argument("name", nargs="?", help="the task")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--levels", action="store_true", help="the task's difficulty levels")
    shown.add_argument("--prompt", action="store_true", help="a problem exactly as the model of --config reads it")
    parser.add_argument(
        "--config", action="append", help="the settings, for --prompt; several, and --model… and --data…, as for fit"
    )
    args, others = parser.parse_known_args(words)
    if args.name is None and (args.levels or args.prompt):
        parser.error("--levels and --prompt are of one task; name it, e.g. tasks spell_backward --levels")
    if args.prompt != (args.config is not None):
        parser.error("--prompt and --config FILE belong together")
    if args.prompt:
        of_fit = [word for word in words if word != "--prompt"]
        of_fit.remove(args.name)
        print(prompt_of(args.name, _settings(of_fit)), flush=True)
        return
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    show = describe_levels if args.levels else describe
    print(show(args.name) if args.name else catalogue(), flush=True)


def _settings(words: Sequence[str]) -> Settings:
    """Read the settings of `fit` with these arguments."""
    from rl_lightning.cli.lightning_cli import PromptCommandLine  # takes seconds

    sys.argv = [sys.argv[0], "fit", *words]
    return PromptCommandLine().settings
