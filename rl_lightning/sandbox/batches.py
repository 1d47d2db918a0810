"""Calls that are sent to a worker several at a time, while the time limit stays that of each one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from rl_lightning.sandbox.pool import WORKER_FAILURES, SandboxPool

Item = TypeVar("Item")


class Batches(Generic[Item]):
    """One method of a pool's object, which takes a list of items, applied to many items.

    A worker takes up no further item of a message once the limit of one has passed; it returns what it has, and the rest is sent
    again. So a message is lost only with an item that exceeds the limit or ends the process. Which one that is shows when each is
    sent by itself; so nothing counts as too slow that was not so twice.

    Args:
        pool: of the workers.
        method: name of a method that takes a list of items and returns a list of as many outcomes.
        seconds: time limit of an item.
    """

    def __init__(self, pool: SandboxPool, method: str, seconds: float) -> None:
        self._pool, self._method, self._seconds = pool, method, seconds
        self._sent: deque[tuple[list[Item], Future[list[Any]], bool]] = deque()

    def send(self, items: Sequence[Item]) -> None:
        """Start on some items, in one message."""
        self._send(list(items), alone=False)

    def received(self, ahead: int = 0) -> Iterator[tuple[Item, Any]]:
        """Each item with its outcome, or with the exception of `WORKER_FAILURES` that it cost, in no particular order.

        Args:
            ahead: number of messages that may still be on their way at the end.
        """
        while len(self._sent) > ahead:
            items, future, alone = self._sent.popleft()
            try:
                outcomes = future.result()
            except WORKER_FAILURES as error:
                if alone:
                    yield items[0], error
                else:
                    for item in items:
                        self._send([item], alone=True)
                continue
            for item, outcome in zip(items, outcomes, strict=False):
                if isinstance(outcome, TimeoutError) and not alone:
                    self._send([item], alone=True)
                else:
                    yield item, outcome
            if rest := items[len(outcomes) :]:
                self._send(rest, alone=False)

    def _send(self, items: list[Item], alone: bool) -> None:
        self._sent.append((items, self._pool.call_each(self._method, items, self._seconds), alone))
