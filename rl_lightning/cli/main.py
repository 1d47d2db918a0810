"""Entry point of the command line: choose the command, and turn mistakes of the user into one line on stderr."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl_lightning.cli.launchers import is_first_rank, is_launched
from rl_lightning.cli.program import program, version
from rl_lightning.types import UserError

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS})

_USAGE = """\
usage: {program} {{fit,validate,compare,report,plan,chat,export,push,serve,tasks}} ...

  fit --config quickstart                       train; --help lists every setting; a config that ships, or your file
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
  --version                                     the version of rl_lightning"""


_STOPPED = "stopped; resume from the last checkpoint by --ckpt_path last"

_EXPECTED = {
    # The user chooses data.num_workers.
    "lightning.pytorch.trainer.connectors.data_connector": ".*does not have many workers",
    # FixedEval evaluates during `fit`; Lightning's own validation loop gets no batches.
    "lightning.pytorch.utilities.data": "Total length of `list` across ranks is zero",
    # Lightning uses a deprecated function of torch, and PEFT one of transformers.
    "lightning.pytorch.utilities._pytree": r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "transformers.modeling_utils": "`is_gradient_checkpointing` is deprecated",
    # The policy stays in eval mode, because it must have no dropout.
    "lightning.pytorch.loops.fit_loop": r"Found \d+ module\(s\) in eval mode",
}
"""Warnings that no user can act on: the module they are attributed to, and a pattern for the message."""


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
    if not is_first_rank():
        _only_errors()
    sys.argv = [sys.argv[0], *args]  # LightningCLI warns where the two differ
    try:
        if not args or args[0] in ("-h", "--help"):
            print(_USAGE.format(program=program()))
            return 0
        if args[0] == "--version":
            print(version())
            return 0
        if args[0] not in _COMMANDS:
            raise UserError(f"{args[0]!r} is not a command; there are: {', '.join(_COMMANDS)}")
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
    """Run `fit` or `validate`."""
    quiet()  # first, because some warnings come at import
    from rl_lightning.cli.lightning_cli import MisconfigurationException, RLCommandLine

    try:
        signal = RLCommandLine().stopped_by
        if signal is not None and is_first_rank():  # of another status Lightning would kill the other ranks
            command = "the same command with --ckpt_path last" if is_launched() else _resume_command(args)
            print(f"stopped; to resume: {command}")
            return 128 + signal
    except MisconfigurationException as error:  # Lightning's error for wrong settings
        raise UserError(" ".join(str(error).split())) from error
    return 0


def _only_errors() -> None:
    """Print nothing but errors, in a rank that is not the first."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def _compare(args: list[str]) -> None:
    from rl_lightning.comparison.command import main as compare

    compare(args[1:], program())


def _report(args: list[str]) -> None:
    from rl_lightning.report.command import main as report

    report(args[1:], program())


def _chat(args: list[str]) -> None:
    quiet()
    from rl_lightning.cli.chat import main as chat

    chat(args[1:])


def _export(args: list[str]) -> int:
    quiet()
    from rl_lightning.cli.export import main as export

    return export(args[1:])


def _serve(args: list[str]) -> None:
    quiet()
    from rl_lightning.cli.serve import main as serve

    serve(args[1:])


def _push(args: list[str]) -> int:
    quiet()
    from rl_lightning.cli.push import main as push

    return push(args[1:])


def _resume_command(args: list[str]) -> str:
    words = [word for word in args if not word.startswith("--ckpt_path=")]
    if "--ckpt_path" in words:
        at = words.index("--ckpt_path")
        del words[at : at + 2]
    return f"{program()} {shlex.join([*words, '--ckpt_path', 'last'])}"


def quiet() -> None:
    """Silence the libraries' warnings about choices that are made on purpose here; all their other messages still appear."""
    from transformers.utils.logging import set_tqdm_hook

    for module, message in _EXPECTED.items():
        warnings.filterwarnings("ignore", message, module=module.replace(".", r"\.") + "$")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    # Under SLURM it says that Lightning puts the job back into the queue, where StopAtSignal has taken its signal over.
    logging.getLogger("lightning.pytorch.trainer.connectors.signal_connector").setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_no_offer)
    set_tqdm_hook(_no_loading_bar)


def _no_offer(record: logging.LogRecord) -> bool:
    """Drop bitsandbytes' offer to download a faster CPU kernel."""
    return not record.msg.startswith("Failed to load CPU gemm_4bit_forward from kernels-community")


def _no_loading_bar(factory: Callable[..., Any], args: Sequence[Any], settings: Mapping[str, Any]) -> Any:
    """Show no progress bar for weights that are read from the disk or written to it; the bars of downloads stay."""
    local = settings.get("desc") in ("Loading weights", "Writing model shards")
    return factory(*args, **settings, **({"disable": True} if local else {}))


def _plan(args: list[str]) -> int:
    """Print the memory plan; return 1 if the settings do not fit."""
    parser = argparse.ArgumentParser(
        f"{program()} plan",
        usage="%(prog)s --config CONFIG [--vram GB] [--cards N] [settings of fit]",
        description="Predict the memory of a run, and choose the settings that fit; exit status 1 if nothing fits.",
        epilog=f"All other settings are those of fit: {program()} fit --help",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "--vram", type=float, metavar="GB", help="of a GPU that need not be here, GB of 10^9 bytes; default: this one's"
    )
    parser.add_argument(
        "--cards", type=int, metavar="N", help="GPUs that the model is laid over; default: as configured"
    )
    try:
        own, rest = parser.parse_known_args(args[1:])
    except argparse.ArgumentError as error:
        what = "a number of cards, such as 2" if error.argument_name == "--cards" else "a number of GB, such as 8"
        raise UserError(f"{error.argument_name}: {error.message}; it must be {what}") from error
    quiet()
    from rl_lightning.cli.lightning_cli import PlanCommandLine
    from rl_lightning.memory import table

    sys.argv = [sys.argv[0], "fit", *rest]
    plan = PlanCommandLine(own.vram, own.cards).plan
    print(table(plan))
    return 0 if plan.fits else 1


def _tasks(args: list[str]) -> None:
    quiet()
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
