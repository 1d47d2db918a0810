"""The command line: what to run, and one line for a mistake."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rl_lightning.types import UserError

_USAGE = """\
usage: python -m rl_lightning {fit,validate,tasks} ...

  fit --config configs/quickstart.yaml          train; --help lists every setting
  fit --config ... --ckpt_path last             go on where a run stopped
  validate --config ... --ckpt_path DIR         the fixed evaluation of a checkpoint
  tasks [NAME]                                  all tasks, or one with its settings and two problems"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: without the program's name; None takes them from the process.

    Returns:
        the exit status: 0, or 2 after a mistake of the user's, which one line on stderr names.
    """
    args = list(sys.argv[1:] if args is None else args)
    sys.argv = [sys.argv[0], *args]  # LightningCLI warns where the two differ
    try:
        if not args or args[0] in ("-h", "--help"):
            print(_USAGE)
        elif args[0] == "tasks":
            print(_tasks(args[1:]))
        elif args[0] in ("fit", "validate"):
            # Seconds of imports that `tasks` can do without.
            from rl_lightning.lightning_cli import MisconfigurationException, RLCommandLine, quiet

            quiet()
            try:
                RLCommandLine()
            except MisconfigurationException as error:  # Lightning's own word for a mistake of the user's
                raise UserError(" ".join(str(error).split())) from error
        else:
            raise UserError(f"{args[0]!r} is not a command; there are: fit, validate, tasks")
    except UserError as error:
        print(f"error: {_last_line(error)}", file=sys.stderr)
        return 2
    return 0


def _tasks(names: list[str]) -> str:
    from rl_lightning.tasks.catalogue import catalogue, describe

    if len(names) > 1:
        raise UserError(f"tasks: takes one name, not {len(names)}")
    return describe(names[0]) if names else catalogue()


def _last_line(error: UserError) -> str:
    """A worker process hands its error over wrapped in its traceback; the message is the last line."""
    return str(error).strip().splitlines()[-1].removeprefix("rl_lightning.types.UserError: ")
