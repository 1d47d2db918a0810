"""Lock down a worker process before it handles text that a model wrote.

In layers, so that each still holds where another is missing: an empty environment and an empty working directory, no standard
streams, no network, no new processes, no writing to files, limits of memory and CPU time. docs/scoring.md says which operating
system has which.
"""

from __future__ import annotations

import ctypes
import functools
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

_NEW_USER_AND_NETWORK = 0x10000000 | 0x40000000
"""Flags of unshare(2), CLONE_NEWUSER | CLONE_NEWNET: a network namespace without a way out."""

_REFUSED = (
    "socket.",
    "subprocess.",
    "shutil.",
    "ctypes.",
    "tempfile.",
    "os.chmod",
    "os.chown",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.putenv",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.spawn",
    "os.startfile",
    "os.symlink",
    "os.system",
    "os.truncate",
    "os.utime",
    "pty.",
    "signal.pthread_kill",
    "sqlite3.",
    "webbrowser.",
)
"""Prefixes of the refused audit events (https://docs.python.org/3/library/audit_events.html)."""

_REFUSED_MODULES = frozenset({"_posixsubprocess", "_sqlite3", "_ctypes"})
"""Modules that can do the same without raising the events above."""

_locked = False

_refusing = threading.local()
"""Whether this thread refuses, outside of a worker, what a worker does."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def lock_down(memory_bytes: int) -> None:
    """Give up irrevocably what no verifier and no problem generator needs; called once in each new worker.

    Args:
        memory_bytes: address space that may be used beyond what the process has already (not limited on Windows; macOS does not
            enforce it).
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a Python handler would wait for a loop in C
    os.environ.clear()
    empty = tempfile.mkdtemp(prefix="rl_lightning_worker_")
    os.chdir(empty)
    if os.name == "posix":
        os.rmdir(empty)  # a process can stay in a deleted directory, and cannot create anything there
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    if sys.platform == "linux":
        # Some systems refuse this; then only the audit hook keeps sockets away.
        ctypes.CDLL(None).unshare(_NEW_USER_AND_NETWORK)
    # After unshare, which needs a single-threaded process.
    threading.Thread(target=_end_with_trainer, daemon=True).start()
    if os.name == "posix":
        _limit_resources(memory_bytes)
    sys.addaudithook(_refuse)
    global _locked
    _locked = True


@contextmanager
def refusing() -> Iterator[None]:
    """Refuse for a while, in this thread alone, what a worker refuses for good: for programs of others that run outside of one.

    They find nothing on standard input, and what they print is dropped. Neither time nor memory is limited.
    """
    _watch()
    before, stdin = vars(_refusing).get("on", False), sys.stdin
    _refusing.on, sys.stdin = True, io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        _refusing.on, sys.stdin = before, stdin


@functools.cache
def _watch() -> None:
    """Add the hook, which cannot be removed, once."""
    sys.addaudithook(lambda event, args: _refuse(event, args) if vars(_refusing).get("on") else None)


def is_locked_down() -> bool:
    """Whether this process has given up its rights, so that it can start no other."""
    return _locked


def _end_with_trainer() -> None:
    """Exit when the trainer has: a worker in the middle of a computation would not notice that otherwise."""
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    trainer.join()
    os._exit(1)


def limit_processor_seconds(seconds: float) -> None:
    """Have the system kill this process after this many more seconds of CPU time, even if the trainer has ended by then."""
    if os.name == "posix":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 2, hard))


def _limit_resources(memory_bytes: int) -> None:
    import resource

    def lower(which: int, value: int) -> None:
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, 0)
    lower(resource.RLIMIT_NPROC, 0)
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as statm:
            now = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        lower(resource.RLIMIT_AS, now + memory_bytes)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        _path, mode, flags = args
        if isinstance(flags, int) and flags & _WRITES:
            raise PermissionError(f"no writing here: open({mode!r})")
    elif event.startswith(_REFUSED) or (event == "import" and args[0] in _REFUSED_MODULES):
        raise PermissionError(f"not here: {event}")
