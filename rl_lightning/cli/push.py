"""The command `python -m rl_lightning push`: an export that was made before goes to the hub."""

from __future__ import annotations

import argparse

from rl_lightning.export.sharing import share
from rl_lightning.hub.pushing import Repository


def main(args: argparse.Namespace) -> int:
    """Push, and print where to.

    Args:
        args: the command line, as `cli.arguments` parses it.

    Returns:
        0.

    Raises:
        UserError: an export that may not be pushed, or a failed push.
    """
    repository = Repository(args.repository, private=not args.public)
    print(share(args.directory.expanduser(), repository, args.dry_run))
    return 0
