"""The parser of the commands that are not Lightning's: a mistake is a UserError, and options are not abbreviated."""

from __future__ import annotations

import argparse
from typing import NoReturn

from rl_lightning.types import UserError


class CommandParser(argparse.ArgumentParser):
    """A parser of `python -m rl_lightning NAME`.

    Args:
        name: the command.
        description: what it does.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=f"python -m rl_lightning {name}", description=description, allow_abbrev=False)
        self._name = name

    def error(self, message: str) -> NoReturn:
        """Raise the mistake as a UserError."""
        raise UserError(f"{self._name}: {message}")
