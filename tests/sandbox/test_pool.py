"""What a worker can do to the rest of the machine: nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl_lightning.sandbox import WORKER_FAILURES, SandboxPool
from rl_lightning.types import UserError

POSIX = pytest.mark.skipif(os.name != "posix", reason="limits of POSIX systems")


class Served:
    """Methods that try it."""

    def start(self):
        self.before = subprocess.run(["echo", "allowed"], check=True, capture_output=True).stdout

    def said_before(self):
        return self.before

    def open_files(self):
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
        return [os.readlink(link) for link in links if os.path.lexists(link)]  # the listing's own is gone by now

    def pid(self):
        return os.getpid()

    def echo(self, value):
        return value

    def attempt(self, what, *args):
        try:
            getattr(self, what)(*args)
        except BaseException as error:
            return type(error).__name__
        return "done"

    def write(self, path):
        with open(path, "w") as file:
            file.write("x")

    def low_level_write(self, path):
        os.open(path, os.O_WRONLY | os.O_CREAT)

    def delete(self, path):
        os.remove(path)

    def run(self):
        subprocess.run(["true"], check=False)

    def shell(self, path):
        os.system(f"touch {path}")

    def fork(self):
        os.fork()

    def connect(self):
        socket.create_connection(("127.0.0.1", 9), timeout=1)

    def kill(self, pid):
        os.kill(pid, 9)

    def hoard(self):
        bytearray(8 * 2**30)

    def read_input(self):
        input()

    def surroundings(self):
        try:
            here = os.listdir(".")
        except FileNotFoundError:
            here = []
        return dict(os.environ), here, sys.stdin.read()

    def sleep(self, seconds):
        time.sleep(seconds)

    def loop(self):
        while True:
            pass

    def count(self):
        return sum(range(10**12))


@pytest.fixture(scope="module")
def pool():
    pool = SandboxPool(Served(), workers=1, memory_gib=1.0)
    yield pool
    pool.close()


@pytest.mark.parametrize("what", ["write", "low_level_write", "shell", "delete"])
def test_no_file_is_touched(pool, tmp_path, what):
    path = tmp_path / "marker"
    if what == "delete":
        path.write_text("x")
    assert pool.call("attempt", what, str(path), seconds=10).result() == "PermissionError"
    assert path.exists() == (what == "delete")


@pytest.mark.parametrize("what", ["run", "fork", "connect"])
def test_no_process_and_no_network(pool, what):
    assert pool.call("attempt", what, seconds=10).result() == "PermissionError"


def test_what_is_started_before_is_allowed(pool):
    assert pool.call("said_before", seconds=10).result() == b"allowed\n"


@POSIX
def test_a_signal_for_the_trainer_that_a_worker_gets_too_costs_no_answer(pool):
    pid = pool.call("pid", seconds=10).result()
    answer = pool.call("sleep", 0.5, seconds=10)
    time.sleep(0.1)
    os.kill(pid, signal.SIGUSR1)
    answer.result()
    assert pool.call("pid", seconds=10).result() == pid


def test_the_trainer_cannot_be_killed_from_there(pool):
    assert pool.call("attempt", "kill", os.getpid(), seconds=10).result() == "PermissionError"


@POSIX
def test_memory_is_limited(pool):
    assert pool.call("attempt", "hoard", seconds=10).result() == "MemoryError"


class StartsNot:
    """Cannot be started."""

    def start(self):
        raise KeyError("no luck")


def test_what_start_raises_is_one_line_with_its_place(capfd):
    pool = SandboxPool(StartsNot(), workers=1)
    try:
        with pytest.raises(UserError, match=r"^start raised KeyError: 'no luck' \(.*test_pool.py, line \d+\)$"):
            pool.call("anything", seconds=10)
    finally:
        pool.close()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_open_file_is_inherited(pool, tmp_path):
    (tmp_path / "secret").write_text("x")
    with (tmp_path / "secret").open():
        assert not [path for path in pool.call("open_files", seconds=10).result() if os.path.isfile(path)]


def test_nothing_is_inherited(pool):
    environment, here, stdin = pool.call("surroundings", seconds=10).result()
    assert environment.keys() <= {"LC_CTYPE"}  # which Python itself sets
    assert (here, stdin) == ([], "")
    assert pool.call("attempt", "read_input", seconds=10).result() == "EOFError"


@pytest.mark.parametrize("work", [("sleep", 60), ("count",)])
def test_a_call_that_overruns_its_time_is_lost_and_the_next_is_not(pool, work):
    with pytest.raises(WORKER_FAILURES):
        pool.call(*work, seconds=0.3).result()
    assert pool.call("echo", 5, seconds=10).result() == 5


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("work", ["loop", "count"])
def test_workers_are_gone_when_the_trainer_is_killed(tmp_path, work):
    """Even one that computes on, in Python, or in C where no other thread gets a turn: the processor limit ends that one."""
    code = (
        "import os, time\n"
        "from rl_lightning.sandbox import SandboxPool\n"
        "from tests.sandbox.test_pool import Served\n"
        "if __name__ == '__main__':\n"
        "    pool = SandboxPool(Served(), 1)\n"
        "    pid = pool.call('pid', seconds=30).result()\n"
        f"    pool.call('{work}', seconds=1)\n"
        "    time.sleep(0.5)\n"
        "    print(pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    pid = int(done.stdout)
    for _ in range(600):  # three seconds of processor time, which may be a minute on a busy machine
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    pytest.fail("the worker is still there")
