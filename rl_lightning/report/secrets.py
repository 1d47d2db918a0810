"""Settings whose names say that they are secret, which no model card and no page shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_SEVERAL = frozenset({"keys", "secrets", "passwords", "credentials"})
_WORDS = _SEVERAL | {"key", "apikey", "token", "secret", "password", "passwd", "credential", "authorization"}
_NONE = frozenset({"token_budget"})
"""Settings of this package that have such a word in their name."""

_LEFT_OUT = "(left out)"


def secret_names(config: Any) -> Iterator[str]:
    """The names of settings, at any depth, that look like a secret."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            if _is_secret(name, value):
                yield str(name)
            else:
                yield from secret_names(value)
    elif isinstance(config, list):
        for value in config:
            yield from secret_names(value)


def without_secrets(config: Any) -> Any:
    """The same settings with "(left out)" for each that looks like a secret."""
    if isinstance(config, Mapping):
        return {
            name: _LEFT_OUT if _is_secret(name, value) else without_secrets(value) for name, value in config.items()
        }
    return [without_secrets(value) for value in config] if isinstance(config, list) else config


def _is_secret(name: Any, value: Any) -> bool:
    """By the words of the name: an `api_key` of any kind, a `secret_of_mine` of text, `api_keys` by name; no `token_limit` of
    5, and no `key` with settings of its own, as in a JSON schema."""
    if value in (None, "") or isinstance(value, bool) or name in _NONE:
        return False
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", str(name))]
    if isinstance(value, str):
        return not _WORDS.isdisjoint(words)
    return bool(words) and words[-1] in (_SEVERAL if isinstance(value, Mapping) else _WORDS)
