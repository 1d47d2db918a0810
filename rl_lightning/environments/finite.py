"""Tasks with a limited number of problems: which of them the evaluation, the worked examples and each slot of the stream get."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache


@lru_cache(maxsize=8)
def shuffled(size: int, key: str) -> tuple[int, ...]:
    """0 to size - 1 in an order that the key decides; kept, because slots are drawn ahead and one by one."""
    order = list(range(size))
    random.Random(key).shuffle(order)
    return tuple(order)


class EpochOrder:
    """The order in which a task's problems are trained on: each once in an epoch, in another order in the next one.

    Args:
        items: numbers of the problems.
        key: decides the orders.
    """

    def __init__(self, items: Sequence[int], key: str) -> None:
        self.items, self._key = list(items), key

    def item(self, ordinal: int, label: str = "") -> int:
        """The problem of the `ordinal`-th slot of the task, counted from 0.

        Args:
            ordinal: how many slots of the task came before.
            label: another label means other orders.
        """
        epoch, position = divmod(ordinal, len(self.items))
        return self.items[shuffled(len(self.items), f"{self._key}:{label}:{epoch}")[position]]


class Ordinals:
    """For each slot of a stream, how many slots before it have the same task.

    Args:
        draw: the task of a slot.
    """

    def __init__(self, draw: Callable[[int], str]) -> None:
        self._draw, self._found, self._count = draw, list[int](), Counter[str]()

    def __getitem__(self, slot: int) -> int:
        while len(self._found) <= slot:
            task = self._draw(len(self._found))
            self._found.append(self._count[task])
            self._count[task] += 1
        return self._found[slot]
