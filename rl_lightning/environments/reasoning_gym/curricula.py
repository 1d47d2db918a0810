"""Convert reasoning-gym's curricula to difficulty levels, each a config.

Level L has every attribute of the curriculum at its L-th value, or at its last one. An attribute that is a range gets only the
L-th segment, because lower ones are covered by the rehearsal of easier levels.
"""

from __future__ import annotations

from typing import Any

from reasoning_gym.factory import CURRICULA

from rl_lightning.environments.environment import Config


def curriculum_levels(name: str) -> list[Config]:
    """The config keys that reasoning-gym's curriculum of the task sets at each level; empty if it has no curriculum."""
    if name not in CURRICULA:
        return []
    attributes = CURRICULA[name]().attributes.values()
    number = max((len(attribute.levels) for attribute in attributes), default=0)
    return [
        {key: value for attribute in attributes for key, value in _values(attribute, level)} for level in range(number)
    ]


def _values(attribute: Any, level: int) -> list[tuple[str, Any]]:
    """The config keys that an attribute sets at a level."""
    last = len(attribute.levels) - 1
    value = attribute.levels[min(level, last)]
    if hasattr(attribute, "field_name"):
        return [(attribute.field_name, value)]
    ends = list(value) if isinstance(value, (list, tuple)) else [value]
    if attribute.ensure_interval and len(ends) == 1:  # a range, which must not be a single value
        high = min(level + 1, last)
        ends = [attribute.levels[max(high - 1, 0)], attribute.levels[high]]
    return [(attribute.lower_field_name, min(ends)), (attribute.upper_field_name, max(ends))]
