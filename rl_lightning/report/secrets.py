"""Settings whose names say that they are secret, which no model card shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_WORDS = frozenset(
    {"key", "apikey", "token", "secret", "password", "passwd", "credential", "credentials", "authorization"}
)
_LEFT_OUT = "(left out)"


def secret_names(config: Any) -> Iterator[str]:
    """The names of settings, at any depth, that look like a secret and have text as their value."""
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
    """By the last word of the name: an `api_key` is one, a `token_budget` is none."""
    return isinstance(value, str) and bool(value) and str(name).lower().replace("-", "_").split("_")[-1] in _WORDS
