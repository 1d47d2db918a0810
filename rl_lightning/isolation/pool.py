"""Calls in worker processes, each with a time limit; a worker that overruns it is killed and replaced."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pebble import ProcessExpired, ProcessPool

from rl_lightning.isolation import cage
from rl_lightning.types import UserError

LOST = (TimeoutError, ProcessExpired, BrokenProcessPool)
"""What a call's future raises when its worker overran its time or died."""

_served: Any = None


class GuardedPool:
    """Worker processes that hold a copy of one object and run its methods.

    The processes start at the first call. Where the system can fork, they come from one clean process that has imported the
    object's module already, so that replacing a killed one takes milliseconds.

    Args:
        served: a picklable object; every worker gets a copy.
        workers: how many processes, at least 1.
        memory_gib: address space that a worker may use beyond what it starts with, GiB.
    """

    def __init__(self, served: Any, workers: int, memory_gib: float = 2.0) -> None:
        self._settings = {
            "max_workers": workers,
            "initializer": _start,
            "initargs": (served, int(memory_gib * 2**30)),
            "context": _context(type(served).__module__),
        }
        self._pool = ProcessPool(**self._settings)
        self._checked = False

    def call(self, method: str, *args: Any, seconds: float) -> Future[Any]:
        """Run `served.method(*args)` in a worker.

        Args:
            method: its name.
            args: picklable.
            seconds: time limit, counted from when a worker takes the call.

        Returns:
            a future whose result() raises one of `LOST` where the worker was lost, or what the method raised.
        """
        if not self._checked:
            self._check()
        if not self._pool.active:  # pebble gives up when an idle worker dies, of the system's lack of memory for one
            self._pool.stop()
            self._pool.join()
            self._pool = ProcessPool(**self._settings)
        return self._pool.schedule(_run, args=(method, seconds, *args), timeout=seconds)

    def _check(self) -> None:
        """See once that a worker starts at all: one that cannot would look like one that was lost, for ever."""
        try:
            self._pool.schedule(_ready).result()
        except LOST as error:
            raise UserError(
                'worker processes do not start; a script that trains needs the guard `if __name__ == "__main__":`, for they '
                "import it (the lines above say more)"
            ) from error
        self._checked = True

    def close(self) -> None:
        """Stop all workers at once; calls that wait are cancelled."""
        self._pool.stop()
        self._pool.join()


def _context(module: str) -> Any:
    """Never fork the trainer itself: that copies torch's locks and CUDA's state."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    multiprocessing.forkserver.ensure_running()  # returns at once; the imports go on beside the caller
    return context


def _start(served: Any, memory_bytes: int) -> None:
    global _served
    _served = served
    cage.enter(memory_bytes)


def _ready() -> bool:
    return True


def _run(method: str, seconds: float, *args: Any) -> Any:
    cage.limit_processor_seconds(seconds)
    return getattr(_served, method)(*args)
