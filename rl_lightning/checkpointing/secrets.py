"""Settings that are secret, by their names or by what they look like: no page, model card or checkpoint has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_SEVERAL = frozenset({"keys", "secrets", "passwords", "credentials"})
_WORDS = _SEVERAL | {"key", "apikey", "token", "secret", "password", "passwd", "credential", "authorization"}
_NONE = frozenset({"token_budget"})
"""Settings of this package that have such a word in their name."""

_TOKEN = re.compile(
    r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA)[\w-]{16,}|\bBearer\s+[\w.~+/-]{16,}|://[^/\s:@]+:[^/\s@]+@"
)
"""Text that is a token of a well-known service, or has a password in an address, whatever it is called."""

_LEFT_OUT = "(left out)"


def secret_names(config: Any) -> Iterator[str]:
    """The names of settings, at any depth, that look like a secret."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            if is_secret(name, value) or (isinstance(value, list) and any(_is_token(each) for each in value)):
                yield str(name)
            else:
                yield from secret_names(value)
    elif isinstance(config, list):
        for value in config:
            yield from secret_names(value)


def without_secrets(config: Any) -> Any:
    """The same settings with "(left out)" for each that looks like a secret."""
    if isinstance(config, Mapping):
        return {name: _LEFT_OUT if is_secret(name, value) else without_secrets(value) for name, value in config.items()}
    if isinstance(config, list):
        return [without_secrets(value) for value in config]
    return _LEFT_OUT if _is_token(config) else config


def is_secret(name: Any, value: Any) -> bool:
    """Whether a setting looks like a secret: a token of a well-known service; or by the words of its name an `api_key` of any
    kind, a `secret_of_mine` of text, `api_keys` by name; no `token_limit` of 5, and no `key` with settings of its own, as in a
    JSON schema."""
    if value in (None, "") or isinstance(value, bool) or name in _NONE:
        return False
    if _is_token(value):
        return True
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", str(name))]
    if isinstance(value, str):
        return not _WORDS.isdisjoint(words)
    return bool(words) and words[-1] in (_SEVERAL if isinstance(value, Mapping) else _WORDS)


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and _TOKEN.search(value) is not None
