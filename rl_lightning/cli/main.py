"""Entry point of the command line: choose the command, and turn mistakes of the user into one line on stderr."""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence

from rl_lightning.cli import arguments
from rl_lightning.cli.fit_help import asked_topic, print_help
from rl_lightning.cli.launchers import is_first_rank, is_launched
from rl_lightning.cli.program import program, version
from rl_lightning.cli.quiet import loading, only_errors
from rl_lightning.types import UserError

_DISK_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.EIO, errno.ESTALE),
    }
)

_USAGE = """\
usage: {program} {{fit,validate,compare,report,plan,chat,export,push,serve,tasks}} ...

  fit --config quickstart                       train; a config that ships, or your file; fit --help has the settings
  fit --config ... --ckpt_path last             resume a run from its newest checkpoint; auto: if there is one, else begin
  validate --config ... --ckpt_path DIR         the fixed evaluation of a checkpoint or adapter
  compare RUN_OR_CHECKPOINT... [base]           paired differences on the same problems: table, picture, JSON
  report RUN...                                 one HTML page of a run, or of several compared; --watch while it runs
  plan --config ... [--vram 8] [--cards 2]      whether it fits this GPU, or one or two of 8 GB, and with which settings
  chat --ckpt_path DIR [--task NAME]            ask the policy a question, or have it solve a task's problem
  export RUN_OR_CHECKPOINT --to DIR --format F   adapter, merged or gguf: the policy as others load it, verified, with a model card
  push DIR OWNER/NAME [--dry-run]               an export to the Hugging Face hub, privately unless --public is given
  serve DIR                                     the commands by which vLLM, transformers, llama.cpp or Ollama serve an export
  tasks [NAME] [--levels]                       all tasks; or one with its settings and two problems, or its levels
  tasks NAME --prompt --config ...              a problem of the task exactly as the model reads it
  tasks NAME --check ANSWER [--config ...]      what the task's verifier says of an answer, and why
  tasks NAME --check ANSWER --verifier Number   the same by another verifier; --expected TEXT in place of a task
  COMMAND --help                                its arguments, with examples; fit --help all: every setting
  --version                                     the version of rl_lightning"""


_STOPPED = "stopped; resume from the last checkpoint by --ckpt_path last"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: the arguments without the program's name; None for those of the process.

    Returns:
        the exit status: 0; 1 if what `plan` was asked about does not fit, or an export failed its verification; 2 after a
        mistake of the user or an error of the disk (full, or not writable), named by one line on stderr; 128 + the signal's
        number after a signal.
    """
    args = list(sys.argv[1:] if args is None else args)
    if isinstance(sys.stdout, io.TextIOWrapper):  # Windows' code pages have no minus sign
        sys.stdout.reconfigure(errors="backslashreplace")
    if not is_first_rank():
        only_errors()
    sys.argv = [sys.argv[0], *args]  # LightningCLI warns where the two differ
    try:
        if not args or args[0] in ("-h", "--help"):
            print(_USAGE.format(program=program()))
            return 0
        if args[0] == "--version":
            print(version())
            return 0
        if args[0] == "help":  # `help fit` for `fit --help`
            args = [args[1], "--help", *args[2:]] if len(args) > 1 else ["--help"]
            return main(args)
        if args[0] not in _COMMANDS:
            near = difflib.get_close_matches(args[0], (*_COMMANDS, "--help", "--version"), n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"{args[0]!r} is not a command; {hint}there are: {', '.join(_COMMANDS)}")
        return _COMMANDS[args[0]](args) or 0
    except UserError as error:
        print(f"error: {_last_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(_STOPPED if args[0] == "fit" else "stopped", file=sys.stderr)
        return 130
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):  # Lightning turns it into SystemExit
            raise
        print(_STOPPED if args[0] == "fit" else "stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `tasks | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        print(f"error: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


# Each command imports what it needs when it is called: the imports of some take seconds.


def _train(args: list[str]) -> int:
    """Run `fit` or `validate`, or show their help."""
    if (topic := asked_topic(args)) is not None:
        print_help(args[0], topic)
        return 0
    with loading("torch, transformers, PEFT and Lightning"):
        from rl_lightning.cli.lightning_cli import MisconfigurationException, RLCommandLine

    try:
        line = RLCommandLine()
        signal = line.stopped_by
        if signal is None and args[0] == "fit" and is_first_rank():
            print(_whats_next(line.trainer.default_root_dir))
        if signal is not None and is_first_rank():  # of another status Lightning would kill the other ranks
            command = "the same command with --ckpt_path last" if is_launched() else _resume_command(args)
            print(f"stopped; to resume: {command}")
            return 128 + signal
    except MisconfigurationException as error:  # Lightning's error for wrong settings
        raise UserError(" ".join(str(error).split())) from error
    return 0


def _whats_next(run: str) -> str:
    """Where a finished run lies, and what one wants to do with it."""
    run = shlex.quote(str(run))
    return (
        f"the run is in {run}; next:\n"
        f"  {program()} report {run}                  one page: is it better, and what it writes\n"
        f"  {program()} chat --ckpt_path {run}        ask it\n"
        f"  {program()} compare {run} base            the paired differences to the policy before training"
    )


def _compare(args: list[str]) -> None:
    given = arguments.of_compare(args[1:])
    from rl_lightning.comparison.command import main as compare

    compare(given)


def _report(args: list[str]) -> None:
    given = arguments.of_report(args[1:])
    from rl_lightning.report.command import main as report

    report(given)


def _chat(args: list[str]) -> None:
    given = arguments.of_chat(args[1:])
    with loading("torch, transformers and PEFT"):
        from rl_lightning.cli.chat import main as chat

    chat(given)


def _export(args: list[str]) -> int:
    given = arguments.of_export(args[1:])
    with loading("torch, transformers and PEFT"):
        from rl_lightning.cli.export import main as export

    return export(given)


def _serve(args: list[str]) -> None:
    given = arguments.of_serve(args[1:])
    from rl_lightning.cli.serve import main as serve

    serve(given)


def _push(args: list[str]) -> int:
    given = arguments.of_push(args[1:])
    from rl_lightning.cli.push import main as push

    return push(given)


def _resume_command(args: list[str]) -> str:
    words = [word for word in args if not word.startswith("--ckpt_path=")]
    if "--ckpt_path" in words:
        at = words.index("--ckpt_path")
        del words[at : at + 2]
    return f"{program()} {shlex.join([*words, '--ckpt_path', 'last'])}"


def _plan(args: list[str]) -> int:
    """Print the memory plan, or help; return 1 if the settings do not fit."""
    if (topic := asked_topic(args)) is not None:
        print_help("plan", topic)
        return 0
    parser = argparse.ArgumentParser("rl_lightning plan", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--vram", type=float)
    parser.add_argument("--cards", type=int)
    try:
        own, rest = parser.parse_known_args(args[1:])
    except argparse.ArgumentError as error:
        what = "a number of cards, such as 2" if error.argument_name == "--cards" else "a number of GB, such as 8"
        raise UserError(f"{error.argument_name}: {error.message}; it must be {what}") from error
    for word in rest:
        if near := difflib.get_close_matches(word.partition("=")[0], ("--vram", "--cards"), n=1, cutoff=0.75):
            raise UserError(f"plan: unrecognized arguments: {word}; did you mean {near[0]}?")
    with loading("torch, transformers, PEFT and Lightning"):
        from rl_lightning.cli.read_only import PlanCommandLine
        from rl_lightning.memory import table

    sys.argv = [sys.argv[0], "fit", *rest]
    plan = PlanCommandLine(own.vram, own.cards).plan
    print(table(plan))
    return 0 if plan.fits else 1


def _tasks(args: list[str]) -> None:
    from rl_lightning.cli.tasks import main as tasks

    tasks(args[1:])


_COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "fit": _train,
    "validate": _train,
    "compare": _compare,
    "report": _report,
    "plan": _plan,
    "chat": _chat,
    "export": _export,
    "push": _push,
    "serve": _serve,
    "tasks": _tasks,
}


def _last_line(error: UserError) -> str:
    """Return the message of an error; a worker process passes its own on wrapped in a traceback, whose last line it is."""
    return str(error).strip().splitlines()[-1].removeprefix("rl_lightning.types.UserError: ")
