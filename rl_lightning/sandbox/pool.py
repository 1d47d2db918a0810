"""Run calls in worker processes, each with a time limit; a worker that exceeds it is killed and replaced."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from pebble import ProcessExpired, ProcessPool

from rl_lightning.sandbox import lock_down
from rl_lightning.sandbox.users_code import said_by
from rl_lightning.types import UserError

WORKER_FAILURES = (TimeoutError, ProcessExpired, BrokenProcessPool)
"""What a call's future raises if its worker exceeded the time limit or died."""

SPAWNS = ("win32", "darwin")
"""Where workers start as new interpreters, which takes seconds. Windows cannot fork; on macOS the system's libraries, which torch
loads, may crash in a process that is forked after their threads have started, so Python does not fork there either."""

_served: Any = None
_start_failed = ""


class SandboxPool:
    """Worker processes that hold a copy of one object and run its methods.

    The processes start at the first call. Except on the systems of `SPAWNS` they are forked from one clean process that has already
    imported the object's module, so that replacing a killed worker takes milliseconds.

    Args:
        served: a picklable object; every worker gets a copy. Its method `start`, if it has one, is called in each worker
            before that gives up its rights.
        workers: number of processes, at least 1.
        memory_gib: address space that a worker may use beyond what it starts with, GiB.
        module: what the process that workers are forked from imports, in place of the object's module. The first pool decides
            for all.
    """

    def __init__(self, served: Any, workers: int, memory_gib: float = 2.0, module: str | None = None) -> None:
        self._settings = {
            "max_workers": workers,
            "initializer": _start,
            "initargs": (served, int(memory_gib * 2**30)),
            "context": _context(module or type(served).__module__),
        }
        self._pool = ProcessPool(**self._settings)
        self._checked = False

    def call(self, method: str, *args: Any, seconds: float) -> Future[Any]:
        """Run `served.method(*args)` in a worker.

        Args:
            method: name of the method.
            args: its arguments; picklable.
            seconds: time limit, counted from when a worker takes the call.

        Returns:
            a future whose result() raises one of `WORKER_FAILURES` if the worker was lost, or whatever the method raised.
        """
        return self._schedule(_run, (method, seconds, *args), seconds)

    def call_each(self, method: str, items: Sequence[Any], seconds: float) -> Future[list[Any]]:
        """Run `served.method([item])` for one item after the other in a worker, until the limit of one has passed.

        Args:
            method: name of a method that takes a list and returns a list of the same length.
            items: at least one; picklable.
            seconds: time limit of an item. The message has twice as long, so that any item which is taken up has this long.

        Returns:
            a future whose result() is the outcomes of the first items, of at least one, with a TimeoutError in place of that of an
            item which took longer; or raises one of `WORKER_FAILURES`.
        """
        return self._schedule(_run_each, (method, seconds, list(items)), seconds * min(len(items), 2))

    def _schedule(self, function: Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Future[Any]:
        if not self._checked:
            self._check()
        if not self._pool.active:  # pebble gives up when an idle worker dies, for instance killed for lack of memory
            self._pool.stop()
            self._pool.join()
            self._pool = ProcessPool(**self._settings)
        return self._pool.schedule(function, args=args, timeout=seconds)

    def _check(self) -> None:
        """Check once that workers can start at all. Otherwise each call would look as if its worker had been lost."""
        try:
            failed = self._pool.schedule(_failed).result()
        except WORKER_FAILURES as error:
            raise UserError(
                'worker processes do not start; a script that trains needs the guard `if __name__ == "__main__":`, because '
                "they import it; a class of a notebook belongs in a file that they can import (the lines above say more)"
            ) from error
        if failed:
            raise UserError(failed)
        self._checked = True

    def close(self) -> None:
        """Stop all workers immediately; waiting calls are cancelled."""
        self._pool.stop()
        self._pool.join()


def _context(module: str) -> Any:
    """Return a start method that never forks the trainer itself, which would copy torch's locks and CUDA's state."""
    if sys.platform in SPAWNS:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    multiprocessing.forkserver.ensure_running()  # returns immediately; the imports run in parallel with the caller
    return context


def _start(served: Any, memory_bytes: int) -> None:
    global _served, _start_failed
    _served = served
    if sys.platform != "win32":
        # The trainer finishes its step at this signal, which SLURM may send to all its processes.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(served, "start"):
        try:
            served.start()
        except (Exception, SystemExit) as error:  # of the user's own classes any; each call says so
            _start_failed = str(error) if isinstance(error, UserError) else f"start raised {said_by(error)}"
    lock_down.lock_down(memory_bytes)


def _failed() -> str:
    return _start_failed


def _run(method: str, seconds: float, *args: Any) -> Any:
    if _start_failed:
        raise UserError(_start_failed)
    lock_down.limit_processor_seconds(seconds)
    return getattr(_served, method)(*args)


def _run_each(method: str, seconds: float, items: list[Any]) -> list[Any]:
    began, outcomes = time.monotonic(), list[Any]()
    for item in items:
        start = time.monotonic()
        if start - began >= seconds:
            break
        outcomes += _run(method, seconds, [item])
        if time.monotonic() - start > seconds:
            outcomes[-1] = TimeoutError()
    return outcomes
