"""The mistake of the user in an error of jsonargparse, or of a class that the user named."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from rl_lightning.environments.environment import Environment
from rl_lightning.environments.verifier import Verifier
from rl_lightning.sandbox.users_code import place_of, said_by
from rl_lightning.types import UserError


@contextmanager
def users_mistakes() -> Iterator[None]:
    """Raise, in place of an error of jsonargparse or of a class that the user named, the mistake in it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the user's own classes any
        if (mistake := users_mistake(error)) is None:
            raise
        raise mistake from error


def users_mistake(error: BaseException) -> UserError | None:
    """The user's mistake that an error of jsonargparse wraps, once for each type that it tried: a UserError, a package that is
    missing, or any exception of a task's class of the user's own; None if it wraps none."""
    wrapped = isinstance(error, (ValueError, ImportError))
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        if wrapped and isinstance(cause, ModuleNotFoundError):
            return UserError(f"a package is missing: {' '.join(str(cause).split())}")
        if place_of(cause) and (made := _made(cause)) is not None:
            return UserError(f"{made.__module__}.{made.__qualname__}: its constructor raised {said_by(cause)}")
        cause = cause.__cause__
    return None


def _made(error: BaseException) -> type | None:
    """The class of the environment or verifier in whose constructor an exception was raised."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        made = frame.f_locals.get("self") if frame.f_code.co_name in ("__init__", "__post_init__") else None
        if isinstance(made, (Environment, Verifier)):
            return type(made)
    return None
