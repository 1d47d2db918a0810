"""The arguments of the commands that are not Lightning's, with the help that each prints.

Imports no library, so that help and mistakes come at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rl_lightning.cli.command_parser import CommandParser
from rl_lightning.cli.shipped_configs import with_config_files

FORMATS = ("adapter", "merged", "gguf")
"""Of exports; `cli.export` has their classes."""

DTYPES = ("float32", "bfloat16", "float16")
"""Of weights; `policy.config` has what they are."""

QUANTISATIONS = ("f16", "q8_0", "q4_k_m")
"""Of GGUF files; `export.llama_cpp` has their numbers."""


def of_compare(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of `compare`; `evaluate` has the words after --evaluate, which are those of `validate`.

    Raises:
        UserError: it is not valid.
    """
    parser = CommandParser(
        "compare",
        "Paired differences to the first one that is named, on the same problems.",
        "outputs/first outputs/second base",
        "outputs/first/best Qwen/Qwen2.5-3B-Instruct --evaluate --config qwen2.5-3b",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="RUN_OR_CHECKPOINT",
        help="a run directory (its newest evaluation), a run's checkpoint (the evaluation at its step; RUN/best is one too), "
        "an evaluation file, or `base` (step 0)",
    )
    default = Path("outputs/comparison")
    parser.add_argument(
        "--out",
        type=Path,
        default=default,
        help="directory for comparison.json and comparison.png; default: %(default)s",
    )
    parser.add_argument(
        "--evaluate",
        nargs=argparse.REMAINDER,
        metavar="--config FILE",
        help="evaluate each of them first, on the suite of that config; everything after it is passed to `validate`. Then an "
        "adapter directory or a model's name can take part too",
    )
    at = words.index("--evaluate") if "--evaluate" in words else len(words)
    args = parser.parse_args(words[:at])
    args.evaluate = words[at + 1 :] if at < len(words) else None
    if len(args.names) < 2:
        parser.error("takes two or more of: run directories, checkpoints, evaluation files, base")
    return args


def of_report(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of `report`.

    Raises:
        UserError: it is not valid.
    """
    parser = CommandParser(
        "report",
        "Write one HTML file that shows runs, or serve it.",
        "outputs/quickstart",
        "outputs/first outputs/second --out both.html",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory; several are compared")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: report.html in the run; for several runs, in the current directory",
    )
    parser.add_argument(
        "--watch", action="store_true", help="serve it on 127.0.0.1 and refresh it while a run continues"
    )
    args = parser.parse_args(words)
    if args.watch and args.out:
        parser.error("--watch serves the page and --out writes it; give one of them")
    return args


def of_chat(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of `chat`.

    Raises:
        UserError: it is not valid.
    """
    parser = CommandParser(
        "chat",
        "Ask the policy questions, from the terminal or standard input; or have it solve a task's problem.",
        "--ckpt_path outputs/quickstart --task spell_backward --index 3",
        "--config qwen2.5-3b < question.txt",
    )
    parser.add_argument(
        "--ckpt_path",
        help="a checkpoint, a run for its newest one, a merged export, or a GGUF file; default: the config's policy",
    )
    parser.add_argument("--config", type=Path, help="the settings; default: the run's config.yaml")
    parser.add_argument("--task", help="ask a problem of this task instead, and score the answer")
    parser.add_argument(
        "--index", type=int, help="number of the problem; without a curriculum, as in eval_results/; default: 0"
    )
    parser.add_argument(
        "--lines", action="store_true", help="each line of standard input is a question; else all of it is one"
    )
    parser.add_argument(
        "--conversation", action="store_true", help="go on with each question from those before it, unlike in training"
    )
    parser.add_argument("--max_new_tokens", type=int, help="length limit in tokens; default: as in the config")
    args = parser.parse_args(with_config_files(words))
    if args.ckpt_path is None and args.config is None:
        parser.error("give --ckpt_path outputs/<run>/checkpoint-N, or --config FILE to ask its policy before training")
    if args.index is not None and (args.task is None or args.index < 0):
        parser.error("--index is the number of a problem, 0 or more, and needs --task")
    if args.task is not None and (args.lines or args.conversation):
        parser.error("--lines and --conversation are for questions of your own, and do not go with --task")
    return args


def of_export(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of `export`.

    Raises:
        UserError: it is not valid.
    """
    parser = CommandParser(
        "export",
        "Write a run's policy as others load it, verify it, and describe it by a model card.",
        "outputs/qwen2.5-3b --to qwen2.5-3b-reasons --format merged --dtype bfloat16",
        "outputs/qwen2.5-3b/best --to qwen-gguf --format gguf --quantize q8_0",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint, RUN/best, or a run for its newest one"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="the directory to make")
    parser.add_argument(
        "--format", choices=FORMATS, required=True, help="a PEFT adapter, one dense model, or files for llama.cpp"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the weights of a dense model; default: that of the base's files"
    )
    quantisations = f"GGUF files: {', '.join(QUANTISATIONS)}; default: f16"
    parser.add_argument("--quantize", nargs="+", choices=QUANTISATIONS, metavar="Q", help=quantisations)
    parser.add_argument(
        "--base", help="the base's full-precision weights, by directory or hub name; default: the run's model"
    )
    parser.add_argument("--config", type=Path, help="the settings; default: the run's config.yaml")
    checked = parser.add_mutually_exclusive_group()
    checked.add_argument(
        "--verify-problems", type=int, metavar="N", help="problems of the evaluation to verify with; default: all"
    )
    checked.add_argument("--no-verify", action="store_true", help="do not verify; the model card says so")
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="push what was made to this model repository of the Hugging Face hub"
    )
    _add_push_options(parser)
    args = parser.parse_args(with_config_files(words))
    if args.push is None and (args.public or args.dry_run):
        parser.error("--public and --dry-run need --push OWNER/NAME")
    if args.verify_problems is not None and args.verify_problems < 1:
        parser.error(f"--verify-problems: {args.verify_problems} is not allowed; it must be at least 1")
    if args.quantize is not None and args.format != "gguf":
        parser.error(f"--quantize is of --format gguf; --format {args.format} has --dtype")
    return args


def of_push(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of `push`.

    Raises:
        UserError: it is not valid.
    """
    parser = CommandParser(
        "push",
        "Push an export to a model repository of the Hugging Face hub.",
        "qwen2.5-3b-reasons me/qwen2.5-3b-reasons --dry-run",
        "qwen2.5-3b-reasons me/qwen2.5-3b-reasons --public",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="what export has made")
    parser.add_argument("repository", metavar="OWNER/NAME", help="the repository; made where there is none")
    _add_push_options(parser)
    return parser.parse_args(words)


def _add_push_options(parser: argparse.ArgumentParser) -> None:
    """Add what `push` and `export --push` have in common."""
    parser.add_argument("--public", action="store_true", help="everybody sees it; default: private")
    parser.add_argument(
        "--dry-run", action="store_true", help="only show what would be pushed: files, sizes, repository, visibility"
    )


def of_serve(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of `serve`.

    Raises:
        UserError: it is not valid.
    """
    parser = CommandParser(
        "serve",
        "Print the commands that serve an export, or a checkpoint's adapter; starts nothing.",
        "qwen2.5-3b-reasons",
        "outputs/qwen2.5-3b --port 9000",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="an export, a GGUF file, a checkpoint, or a run")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    return parser.parse_args(words)


def of_tasks(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line of `tasks`: its own arguments, and the others, which with --config are those of `fit`.

    Raises:
        UserError: they are not valid.
    """
    parser = CommandParser(
        "tasks",
        "All tasks; or one with its settings and two problems, its levels, a prompt, or what its verifier says.",
        "spell_backward --levels",
        "chain_sum --check 42 --index 3",
    )
    parser.add_argument("name", nargs="?", help="the task; without it all are listed")
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
    if others and args.config is None:
        parser.refuse_unknown(others)
    if args.name is None and args.expected is None and len(words) > 0:
        parser.error("this is about one task; name it, e.g. tasks spell_backward --levels")
    if args.prompt and args.config is None:
        parser.error("--prompt and --config FILE belong together")
    if args.index is not None and (args.check is None or args.index < 0):
        parser.error("--index is the number of a problem, 0 or more, and needs --check")
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
