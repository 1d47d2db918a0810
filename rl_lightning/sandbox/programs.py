"""Run programs that a model wrote, in processes that can compute and do nothing else, and say what they made.

A small launcher process (`program_launcher.py`) forks one child for each run. What a program must not know, such as the right
results, is never sent there: the caller compares. docs/scoring.md says what holds the child.
"""

from __future__ import annotations

import json
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import IO, Any, NoReturn

from rl_lightning.sandbox import lock_down
from rl_lightning.types import UserError

_LAUNCHER = Path(__file__).with_name("program_launcher.py")
_REQUEST = struct.Struct("!Id")
_REPLY = struct.Struct("!cI")
MOST_BYTES = 2**20
"""A longer output or result of a program is none; bytes as JSON."""

MOST_DEPTH = 100
"""A result that is nested deeper is none."""

_MOST_CHARACTERS = 2**20
"""A longer program is none."""

_KINDS: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class ProgramFailed(Exception):
    """A program made nothing that can be compared.

    Attributes:
        reason: "time", "too_long", or "no_result", such as after an exception.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProgramRunner:
    """A launcher process and the pipes to it. The launcher ends when this process does, however that happens.

    Args:
        memory_mib: address space that a program may have, MiB.

    Attributes:
        launcher: the launcher's process number.

    Raises:
        UserError: this system cannot hold such a program: it is not Linux on x86-64, or the launcher's own attempts to break out,
            made where a program will run, were not refused.
    """

    def __init__(self, memory_mib: int) -> None:
        machine = f"{platform.system()} on {platform.machine()}"
        if machine != "Linux on x86_64" or sys.maxsize < 2**32:
            raise UserError(f"programs that a model wrote: run only on 64-bit Linux on x86-64, not on {machine}")
        self._lock = Lock()
        words = [sys.executable, "-s", "-S", "-P", "-X", "utf8", str(_LAUNCHER)]
        self._process = subprocess.Popen(
            [*words, str(memory_mib * 2**20), str(MOST_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0"},  # sets of text have the same order in every run
            cwd="/",
            start_new_session=True,  # Ctrl-C is the trainer's
        )
        self.launcher = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = _kept(self._process.stdin), _kept(self._process.stdout)
        try:
            self._prove()
        except BaseException:
            self.close()
            raise

    def run(self, program: str, call: str | None, given: str, seconds: float) -> Any:
        """Run a program in a fresh process.

        Args:
            program: its source; it can import what `program_launcher.py` has imported.
            call: an expression that is evaluated after it, in its namespace; None: the program runs as a script.
            given: what it reads from standard input.
            seconds: time limit.

        Returns:
            the value of the call, of Python's own types; or, for a script, what it wrote to standard output. It comes from the
            program: it may be any such value.

        Raises:
            ProgramFailed: there is none.
            RuntimeError: the launcher has ended, so this object is of no use any more. A worker that is locked down, and could
                start no other, ends instead: the pool replaces it.
        """
        if len(program) > _MOST_CHARACTERS:
            raise ProgramFailed("too_long")
        text = self._ask({"program": program, "call": call, "given": given}, seconds)
        try:
            value = json.loads(text)
            return _value(value) if call is not None else _text(value)
        except (ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
            raise ProgramFailed("no_result") from error

    def close(self) -> None:
        """End the launcher, and the program that it may be running."""
        if not self.closed:
            os.close(self._to)
            os.close(self._from)
            self._to = self._from = -1
            self._process.wait()

    @property
    def closed(self) -> bool:
        """Whether the launcher has ended."""
        return self._to < 0

    def _prove(self) -> None:
        """Have the launcher try to break out from where a program will run."""
        try:
            permitted = json.loads(self._ask({"program": None, "given": ""}, seconds=60))
        except (ProgramFailed, RuntimeError, ValueError) as error:
            raise UserError("programs that a model wrote: a trial run of their sandbox gave no result here") from error
        if permitted:
            raise UserError(f"programs that a model wrote: this system would let them {', '.join(permitted)}")

    def _ask(self, request: dict[str, Any], seconds: float) -> bytes:
        data = json.dumps(request).encode()
        with self._lock:
            try:
                _write(self._to, _REQUEST.pack(len(data), seconds) + data)
                status, size = _REPLY.unpack(_read(self._from, _REPLY.size))
                answer = _read(self._from, size)
            except (BrokenPipeError, EOFError):
                self._lost(RuntimeError("the launcher of programs has ended"))
        if status == b"E":
            self._lost(UserError(f"programs that a model wrote: the system does not hold them ({answer.decode()})"))
        if status != b"R":
            raise ProgramFailed("time" if status == b"T" else "too_long")
        return answer

    def _lost(self, error: Exception) -> NoReturn:
        if lock_down.is_locked_down():
            os._exit(1)
        self.close()
        raise error


_runners: dict[tuple[int, int], ProgramRunner] = {}


def runner(memory_mib: int) -> ProgramRunner:
    """This process's runner with that much memory for a program; it is started where there is none.

    Raises:
        UserError: see `ProgramRunner`.
    """
    key = os.getpid(), memory_mib  # a forked process must not speak on its parent's pipes
    if key not in _runners or _runners[key].closed:
        _runners[key] = ProgramRunner(memory_mib)
    return _runners[key]


def _kept(pipe: IO[bytes]) -> int:
    """A descriptor of the pipe that is none of the standard streams', which a worker gives up later."""
    import fcntl  # not on Windows

    with pipe:
        return fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, 3)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _read(descriptor: int, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = os.read(descriptor, size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def _value(tagged: Any, depth: int = 0) -> Any:
    """The value that `program_launcher._tagged` made this of; but a program may have written anything.

    Raises:
        ValueError, TypeError, KeyError: it is no such value.
    """
    if depth > MOST_DEPTH or isinstance(tagged, dict):
        raise ValueError("no value of a call")
    if not isinstance(tagged, list):
        return tagged
    kind, items = tagged
    if kind == "bytes":
        return bytes.fromhex(items)
    if kind == "dict":
        return {_value(k, depth + 1): _value(v, depth + 1) for k, v in items}
    return _KINDS[kind](_value(item, depth + 1) for item in items)
