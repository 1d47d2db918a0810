"""The command `python -m rl_lightning push`: an export that was made before goes to the hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rl_lightning.cli.command_parser import CommandParser
from rl_lightning.export.sharing import share
from rl_lightning.hub.pushing import Repository


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: it is not valid.
    """
    parser = CommandParser("push", "Push an export to a model repository of the Hugging Face hub.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="what export has made")
    parser.add_argument("repository", metavar="OWNER/NAME", help="the repository; made where there is none")
    add_push_options(parser)
    return parser.parse_args(words)


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """Add what `push` and `export --push` have in common."""
    parser.add_argument("--public", action="store_true", help="everybody sees it; default: private")
    parser.add_argument(
        "--dry-run", action="store_true", help="only show what would be pushed: files, sizes, repository, visibility"
    )


def main(words: Sequence[str]) -> int:
    """Push, and print where to.

    Returns:
        0.

    Raises:
        UserError: a mistake on the command line, an export that may not be pushed, or a failed push.
    """
    args = arguments(words)
    repository = Repository(args.repository, private=not args.public)
    print(share(args.directory.expanduser(), repository, args.dry_run))
    return 0
