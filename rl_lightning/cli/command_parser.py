"""The parser of the commands that are not Lightning's, and the mistake of the user in an error of jsonargparse."""

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


def users_mistake(error: BaseException) -> UserError | None:
    """The user's mistake that an error of jsonargparse wraps, once for each type that it tried; None if it wraps none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, ModuleNotFoundError):
            return UserError(f"a package is missing: {' '.join(str(cause).split())}")
        cause = cause.__cause__
    return None
