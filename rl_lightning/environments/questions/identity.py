"""What tells two verifiers or classes of tasks apart, whose rows must not be taken for each other's."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from pathlib import Path
from typing import Any

from rl_lightning.types import UserError, first_line

PLAIN = (str, int, float, bool, type(None))
_PACKAGE = Path(__file__).parents[1]


def settings_of(thing: Any) -> str:
    """The settings of a verifier, or a dict of settings, as text: readable where they are plain, else their hash.

    Args:
        thing: what is to be described.

    Raises:
        UserError: it cannot be pickled.
    """
    found = thing if isinstance(thing, dict) else vars(thing)
    name = "" if isinstance(thing, dict) else f"{type(thing).__qualname__} "
    if _is_plain(found):
        return f"{name}{found}"
    try:
        return f"{name}SHA-256 {hashlib.sha256(pickle.dumps(found)).hexdigest()}"
    except Exception as error:  # pickle's own, TypeError, AttributeError, and whatever its methods raise
        raise UserError(f"{name}cannot be copied into worker processes: {first_line(error)}") from error


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(each) for pair in value.items() for each in pair)
    return all(map(_is_plain, value)) if isinstance(value, list) else type(value) in PLAIN


def source_of(kind: type) -> str | None:
    """A hash of the files that define a class and those it inherits from, and of this package's own reading and verifying; None
    where there is no file, as in a notebook."""
    files = {
        *(_PACKAGE / "questions").glob("*.py"),
        *(_PACKAGE / "verifiers").glob("*.py"),
        _PACKAGE / "question_hash.py",
    }
    try:
        files |= {Path(inspect.getfile(each)) for each in kind.__mro__ if each.__module__ not in ("builtins", "abc")}
        found = hashlib.sha256()
        for file in sorted(files):
            found.update(file.read_bytes())
    except (OSError, TypeError):
        return None
    return found.hexdigest()
