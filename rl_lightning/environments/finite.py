"""Tasks with a limited number of problems: which of them the evaluation, the worked examples and each slot of the stream get."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6


class Permutation(Sequence[int]):
    """0 to size - 1 in an order that a key decides, without a list of them: a Feistel network (Luby and Rackoff, 1988) on the
    numbers below the next power of 4, walked until the number is below `size` (Black and Rogaway, 2002).

    Args:
        size: how many; at least 1.
        key: decides the order.
    """

    def __init__(self, size: int, key: str) -> None:
        self._size, self._key = size, hashlib.blake2b(key.encode(), digest_size=32).digest()
        self._bits = max(((size - 1).bit_length() + 1) // 2, 3)  # fewer would make some orders more likely

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, position: int) -> int:  # type: ignore[override]
        """The number at a position in [0, size), or from the end where it is negative.

        Raises:
            IndexError: there is no such position.
        """
        found = position + self._size if position < 0 else position
        if not 0 <= found < self._size:
            raise IndexError(position)
        while True:
            found = self._encrypt(found)
            if found < self._size:
                return found

    def _encrypt(self, number: int) -> int:
        low = (1 << self._bits) - 1
        left, right = number >> self._bits, number & low
        for round_ in range(_ROUNDS):
            mixed = hashlib.blake2b(b"%d:%d" % (round_, right), key=self._key, digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(mixed, "big") & low)
        return left << self._bits | right


class EpochOrder:
    """The order in which a task's problems are trained on: each once in an epoch, in another order in the next one.

    Args:
        items: numbers of the problems.
        key: decides the orders.
    """

    def __init__(self, items: Sequence[int] | NDArray[np.int64], key: str) -> None:
        self.items, self._key = items, key

    def item(self, ordinal: int, label: str = "") -> int:
        """The problem of the `ordinal`-th slot of the task, counted from 0.

        Args:
            ordinal: how many slots of the task came before.
            label: another label means other orders.
        """
        epoch, position = divmod(ordinal, len(self.items))
        return int(self.items[Permutation(len(self.items), f"{self._key}:{label}:{epoch}")[position]])


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
