"""The collective operations that training needs, and their implementation for a single process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")


class Collective(Protocol):
    """Collective operations. Every rank calls the same ones in the same order, and each returns the same value on every rank.

    The argument is not changed; the result may be the argument itself (a single process) or a new object. The caller must not
    change either in place.

    Attributes:
        rank: this process's number, from 0. Only rank 0 writes files, and it makes the decisions that depend on time.
        world_size: W, the number of ranks.
    """

    rank: int
    world_size: int

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds that this rank has spent so far in each operation, by the operation's name, waiting for others included."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over all ranks, on the device and in the dtype of `values`; every rank gets it.

        Args:
            values: a tensor without gradient, of the same shape and dtype on every rank.
        """
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any rank."""
        ...

    def gather(self, value: T) -> list[T]:
        """The W values of all ranks, in the order of the ranks; every rank gets them. Values must be picklable; tensors in them
        must be moved to this rank's device by the implementation."""
        ...

    def broadcast(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on every rank; it must be picklable. Other ranks do not call `make`. An exception that it raises is
        raised on every rank."""
        ...


class SingleProcess:
    """A single process, in which collective operations return their argument."""

    rank = 0
    world_size = 1
    seconds: Mapping[str, float] = MappingProxyType({})

    def sum(self, values: Tensor) -> Tensor:
        return values

    def any(self, flag: bool) -> bool:
        return flag

    def gather(self, value: T) -> list[T]:
        return [value]

    def broadcast(self, make: Callable[[], T]) -> T:
        return make()
