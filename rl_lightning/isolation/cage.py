"""What a worker process gives up before it meets a text that a model wrote.

Layers, each of which holds where another is missing: an empty environment and an empty directory, no standard streams, no network,
no new processes, no writing to files, limits of memory and processor time. docs/scoring.md says which system has which.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from typing import Any

_NEW_USER_AND_NETWORK = 0x10000000 | 0x40000000
"""unshare(2): CLONE_NEWUSER | CLONE_NEWNET, a network that has no way out."""

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
"""Audit events (https://docs.python.org/3/library/audit_events.html) by the beginning of their name."""

_REFUSED_MODULES = frozenset({"_posixsubprocess", "_sqlite3", "_ctypes"})
"""What has ways around the events above."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def enter(memory_bytes: int) -> None:
    """Give up, for good, what no scorer and no generator needs; called once in a new worker.

    Args:
        memory_bytes: address space beyond what the process has already (not on Windows, and macOS does not hold to it).
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a Python handler would wait for a loop in C
    os.environ.clear()
    empty = tempfile.mkdtemp(prefix="rl_lightning_worker_")
    os.chdir(empty)
    if os.name == "posix":
        os.rmdir(empty)  # one can stay in a directory that is gone, and put nothing there
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(_NEW_USER_AND_NETWORK)  # refused by some systems; then the audit hook stands alone
    threading.Thread(target=_end_with_trainer, daemon=True).start()  # after unshare, which wants a single thread
    if os.name == "posix":
        _limit_resources(memory_bytes)
    sys.addaudithook(_refuse)


def _end_with_trainer() -> None:
    """A worker that computes would not notice that nobody is left to read its answer."""
    trainer = multiprocessing.parent_process()
    assert trainer is not None
    trainer.join()
    os._exit(1)


def limit_processor_seconds(seconds: float) -> None:
    """The system kills the process that computes for longer, even when nobody is left to do so."""
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
