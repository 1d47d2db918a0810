"""A thread whose calls have a time limit, and leave the process's RNG states as they were."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from rl_lightning.checkpointing.resume import restore_rng_states, rng_states

T = TypeVar("T")


class HungError(Exception):
    """A call has not returned within its time."""


class LimitedThread:
    """Runs calls one after another in one thread of its own. A thread cannot be stopped: one whose call hangs is left behind, and
    ends with the process."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="vllm", daemon=True).start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            try:
                future.set_result(function())
            except BaseException as error:  # it is the caller's, who waits for it
                future.set_exception(error)
            del call, function, future  # what they refer to may be large

    def call(self, function: Callable[[], T], seconds: float) -> T:
        """What `function` returns, or the exception that it raises.

        Args:
            function: called in the thread.
            seconds: time limit.

        Raises:
            HungError: it has not returned within its time.
        """
        future: Future[T] = Future()
        self._calls.put((function, future))
        try:
            return future.result(max(seconds, 0.0))
        except TimeoutError:
            if future.done():
                raise
            raise HungError from None

    def end(self) -> None:
        """Let the thread end when its calls are done."""
        self._calls.put(None)


@contextmanager
def process_unchanged() -> Iterator[None]:
    """Restore the RNG states of the process, which decide what a resumed run does, and `torch.set_num_threads`, which vLLM
    replaces on a CPU."""
    states, set_num_threads = rng_states(), torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads
        restore_rng_states(states)
