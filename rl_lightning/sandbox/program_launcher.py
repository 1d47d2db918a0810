"""The process that starts a model's programs, each in a child that can compute and do nothing else; run as a script.

`programs.py` starts it, before a worker gives up its rights, and speaks with it by pipes. It uses the standard library only, and
what it has imported is what programs can import. A request is its length, its seconds and its JSON, and the child reads that JSON
itself: nothing of one program is ever in the memory that the next one's child inherits. A reply is a status, a length and the
bytes that the child wrote, which nothing here interprets. The statuses: R for a result, T where time ran out, L where the result
was too long, E with a message where the child could not give up its rights.

The launcher ends when its input does, and a child ends with the launcher.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import gc
import importlib
import json
import mmap
import os
import random
import resource
import select
import signal
import struct
import sys
import time
import types
from typing import Any, NoReturn

_MODULES = (
    *("abc", "array", "base64", "bisect", "calendar", "cmath", "collections", "collections.abc", "contextlib", "copy"),
    *("dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io"),
    *("itertools", "math", "numbers", "operator", "pprint", "queue", "re", "statistics", "string", "textwrap"),
    *("threading", "traceback", "typing", "unicodedata", "zlib", "_strptime"),
)
"""What programs can import besides this file's own imports; nothing can be read from the disk later."""

_REQUEST = struct.Struct("!Id")
_REPLY = struct.Struct("!cI")

_ALLOWED = {
    **{"read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "munmap": 11, "brk": 12, "rt_sigaction": 13},
    **{"rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35},
    **{"getpid": 39, "exit": 60, "gettimeofday": 96, "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202},
    **{"restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231},
    **{"getrandom": 318},
}
"""System calls of x86-64 that a program may make: with the descriptors that it has, and its own memory."""

_WITHOUT_EXECUTION = {"mmap": 9, "mprotect": 10}
"""System calls that it may make unless their third argument asks for memory that can be executed."""

_ARCHITECTURE = 0xC000003E
"""AUDIT_ARCH_X86_64: with another, the numbers above mean something else."""

_NO_NEW_PRIVILEGES, _SECCOMP, _DEATH_SIGNAL, _DUMPABLE = 38, 22, 1, 4
"""Numbers of prctl(2)."""


def main(memory_bytes: int, most_bytes: int) -> None:
    """Serve requests until the input ends.

    Args:
        memory_bytes: address space that a program may have.
        most_bytes: a program's output or result that is longer is none.
    """
    for name in _MODULES:
        importlib.import_module(name)
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # as without -S
    gc.collect()
    gc.freeze()
    launcher, buffer = os.getpid(), bytearray(most_bytes)
    while header := _read(0, _REQUEST.size):
        length, seconds = _REQUEST.unpack(header)
        result, channel = os.pipe()
        child = os.fork()
        if child == 0:
            _child(launcher, length, seconds, memory_bytes, most_bytes, channel)
        os.close(channel)
        status, size = _collect(result, seconds, buffer)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(result)
        _write(1, _REPLY.pack(status, size))
        _write(1, memoryview(buffer)[:size])  # without a copy of it, which the next child could find
        buffer[:size] = bytes(size)


def _read(descriptor: int, size: int) -> bytes:
    """Read that many bytes, or nothing where the input ends before."""
    parts = b""
    while len(parts) < size:
        part = os.read(descriptor, size - len(parts))
        if not part:
            return b""
        parts += part
    return parts


def _write(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _collect(result: int, seconds: float, buffer: bytearray) -> tuple[bytes, int]:
    """Read what a child writes, at most for that many seconds after its first byte, which says whether it gave up its rights.

    Returns:
        the status, and how many bytes of the buffer were written.
    """
    events = select.poll()
    events.register(result, select.POLLIN)
    events.register(0, 0)  # reports only that the worker is gone
    first, size = bytearray(1), 0
    _wait(events, None)
    if os.readv(result, [first]) == 0:
        os._exit(1)  # the child may have left a part of its request, which would be taken for the next one
    end = time.monotonic() + seconds
    while _wait(events, end - time.monotonic()):
        got = os.readv(result, [memoryview(buffer)[size:]])
        size += got
        if got == 0:
            return (b"R" if first == b"+" else b"E"), size
        if size == len(buffer):
            return b"L", 0
    return b"T", 0


def _wait(events: select.poll, seconds: float | None) -> bool:
    """Whether something can be read before the time is over; ends this process if the worker is gone."""
    if seconds is not None and seconds <= 0:
        return False
    ready = events.poll(None if seconds is None else seconds * 1000)
    if any(descriptor == 0 for descriptor, _ in ready):
        os._exit(0)  # and the system kills the child
    return bool(ready)


def _child(launcher: int, length: int, seconds: float, memory_bytes: int, most_bytes: int, channel: int) -> NoReturn:
    """Read a request, give up all rights, run the program and write what comes of it."""
    try:
        try:
            _prctl(_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() != launcher:
                os._exit(1)  # it ended before the line above
            request = json.loads(_read(0, length))
            _replace_streams(request["given"])
            _lock(seconds, memory_bytes, most_bytes, channel)
        except BaseException as error:
            _write(channel, f"-{type(error).__name__}: {error}".encode())
            raise
        _write(channel, b"+")
        made = _permitted() if request["program"] is None else _execute(request["program"], request["call"])
        _write(channel, json.dumps(made).encode())
    except BaseException:
        pass  # whatever a program raises, there is no result: the launcher sees that
    finally:
        os._exit(0)


def _replace_streams(given: str) -> None:
    """Make the standard streams files in memory, the input one with the given text, for `open(0)` and `os.write(1, …)` too."""
    for stream in (0, 1):
        file = os.memfd_create("stream")
        if stream == 0:
            _write(file, given.encode("utf-8", "replace"))
            os.lseek(file, 0, os.SEEK_SET)
        os.dup2(file, stream)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115, it lives as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = importlib.import_module("io").StringIO()


def _lock(seconds: float, memory_bytes: int, most_bytes: int, channel: int) -> None:
    """Give up every right but to compute.

    Raises:
        OSError: the system does not do it.
    """
    os.closerange(2, channel)
    os.closerange(channel + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    for which, value in (
        (resource.RLIMIT_CPU, int(seconds) + 2),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, most_bytes),  # of the output in memory; there is no other file
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    _prctl(_DUMPABLE, 0)
    _prctl(_NO_NEW_PRIVILEGES, 1)
    rules = _rules()
    held = ctypes.create_string_buffer(rules)
    # struct sock_fprog: the number of rules, of 8 bytes each, and where they are
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules) // 8, ctypes.addressof(held)))
    _prctl(_SECCOMP, 2, ctypes.addressof(program))


def _prctl(*arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    five = (*arguments, 0, 0, 0, 0)[:5]
    if libc.prctl(*(ctypes.c_ulong(a) for a in five)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {arguments[0]}: {os.strerror(ctypes.get_errno())}")


def _rules() -> bytes:
    """The filter of system calls, as a program of classic BPF (seccomp(2)): what is not allowed fails with EPERM."""
    load, if_equal, if_any_bit, end = 0x20, 0x15, 0x45, 0x06
    allow, refuse = (end, 0, 0, 0x7FFF0000), (end, 0, 0, 0x00050000 | errno.EPERM)
    # A rule is its code, how many rules to skip if it holds and if it does not, and a value.
    rules = [(load, 0, 0, 4), (if_equal, 1, 0, _ARCHITECTURE), refuse, (load, 0, 0, 0)]
    for number in _ALLOWED.values():
        rules += [(if_equal, 0, 1, number), allow]
    for number in _WITHOUT_EXECUTION.values():
        rules += [(if_equal, 0, 4, number), (load, 0, 0, 32), (if_any_bit, 1, 0, mmap.PROT_EXEC), allow, refuse]
    return b"".join(struct.pack("HBBI", *rule) for rule in (*rules, refuse))


def _permitted() -> list[str]:
    """What a program must not do and was not refused by the filter."""
    libc = ctypes.CDLL(None, use_errno=True)
    attempts: dict[str, tuple[Any, ...]] = {
        "open a file": (2, b"/", 0),
        "open a file (openat)": (257, -100, b"/", 0),
        "make a socket": (41, 1, 1, 0),
        "start a process (fork)": (57,),
        "start a process (clone)": (56, signal.SIGCHLD, 0, 0, 0, 0),
        "start a process (clone3)": (435, 0, 0),
        "execute a file": (59, b"/", 0, 0),
        "signal another process": (62, os.getppid(), 0),
        "trace another process": (101, 2, os.getppid(), 0, 0),
        "map code": (9, 0, 4096, 5, 0x22, -1, 0),
        "make memory executable": (10, 0, 0, 5),
        "make the calls of x32": (0x40000000 | 39,),
    }
    permitted = []
    for what, arguments in attempts.items():
        ctypes.set_errno(0)
        done = libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
        if done == 0 and what.startswith("start"):
            os._exit(0)  # this is the process that must not be
        if done != -1 or ctypes.get_errno() != errno.EPERM:
            permitted.append(what)
    return permitted


def _execute(program: str, call: str | None) -> Any:
    """Run a program: what it writes, or what a call of it gives then, as JSON can hold it."""
    random.seed(0)  # the same verdict in every run
    module = types.ModuleType("__main__" if call is None else "answer")
    sys.modules[module.__name__] = module
    output = sys.stdout
    try:
        exec(compile(program, "answer.py", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as end:
        if call is not None or end.code not in (None, 0):
            raise
    if call is not None:
        return _tagged(eval(compile(call, "test.py", "eval", dont_inherit=True), module.__dict__))
    for stream in (output, sys.stdout):  # a program may have put its own in place
        if not stream.closed:
            stream.flush()
    size = os.lseek(1, 0, os.SEEK_END)
    os.lseek(1, 0, os.SEEK_SET)
    return _read(1, size).decode("utf-8", "replace")


def _tagged(value: Any) -> Any:
    """A value as JSON can hold it: lists, tuples, sets, dicts and bytes as [name, items].

    Raises:
        TypeError: it is, or holds, something else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        return ["dict", [[_tagged(k), _tagged(v)] for k, v in value.items()]]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, [_tagged(item) for item in value]]
    raise TypeError(type(value).__name__)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
