"""What an evaluation ran under: of two that differ in it, rounding alone may decide some completions otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Conditions = Mapping[str, Any]
"""The field `ran_with` of an evaluation: `rows_at_once`, `cuda_graphs`, `weights`, `dtype`, `device`."""


def condition_differences(before: Conditions, now: Conditions) -> list[str]:
    """Say in a few words each what differs; what one of the two does not tell is left out.

    Args:
        before: of one evaluation.
        now: of another one of the same suite.
    """
    return [
        f"{name} was {before[name]} and is {now[name]}" for name in before if name in now and before[name] != now[name]
    ]
