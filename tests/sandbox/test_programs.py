"""What a program that a model wrote can do besides compute: nothing. And nobody is left behind."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl_lightning.sandbox import WORKER_FAILURES, SandboxPool, programs
from rl_lightning.sandbox.programs import ProgramFailed, ProgramRunner
from rl_lightning.types import UserError
from tests.hostile_programs import SEARCH

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the kernel's filter is Linux's, on x86-64"
)
LAUNCHER = Path(programs.__file__).with_name("program_launcher.py").read_text()


class Served:
    """Runs programs in a worker."""

    def start(self):
        programs.runner(256)

    def run(self, program, call, seconds):
        return programs.runner(256).run(program, call, "", seconds)

    def processes(self):
        return os.getpid(), programs.runner(256).launcher


@pytest.fixture(scope="module")
def runner():
    runner = ProgramRunner(256)
    yield runner
    runner.close()


@pytest.fixture
def pool():
    pool = SandboxPool(Served(), workers=1)
    yield pool
    pool.close()


def is_gone(pid):
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(*pids):
    for _ in range(600):
        if all(map(is_gone, pids)):
            return
        time.sleep(0.1)
    pytest.fail(f"still there: {[pid for pid in pids if not is_gone(pid)]}")


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_child(pid):
    for _ in range(600):
        if found := children(pid):
            return found[0]
        time.sleep(0.1)
    pytest.fail("no program is running")


def test_values_come_back_as_they_were(runner):
    text = "[1, -2.5, 1e300, True, None, 'ü\\n\\ud800', b'\\x00x', (1, [2]), {1: {2}, (3,): frozenset({4})}, 10**100]"
    value = runner.run(f"def f(): return {text}", "f()", "", 10)
    assert repr(value) == repr(eval(text))
    assert runner.run("import collections", "collections.Counter('aab')", "", 10) == {"a": 2, "b": 1}


def test_a_script_reads_its_input_in_any_way_and_what_it_writes_is_its_result(runner):
    program = "import sys, os\n{}\nsys.stdout.flush()\nos.write(1, b'end')"
    for reads in ("print(input()); print(input())", "print(sys.stdin.read().strip())", "print(open(0).read().strip())"):
        assert runner.run(program.format(reads), None, "a\nb\n", 10) == "a\nb\nend"
    assert runner.run("print(__name__)\nimport sys\nsys.exit()", None, "", 10) == "__main__\n"
    with pytest.raises(ProgramFailed):
        runner.run("print(1)\nraise SystemExit(1)", None, "", 10)


def test_what_a_program_made_of_chance_or_of_a_sets_order_is_the_same_each_time(runner):
    program, other = "import random\ndef f(): return [random.random(), list(set('abcdefgh'))]", ProgramRunner(256)
    assert runner.run(program, "f()", "", 10) == runner.run(program, "f()", "", 10) == other.run(program, "f()", "", 10)
    other.close()


def test_programs_know_nothing_of_each_other(runner):
    with pytest.raises(ProgramFailed):
        runner.run("import math, builtins\nmath.pi = builtins.left = 3\nleft", "left2", "", 10)
    assert runner.run("import math", "math.pi > 3.1 and not hasattr(__builtins__, 'left')", "", 10) is True


def test_nothing_of_a_program_is_left_for_the_next_to_find(runner):
    """The search finds the word where it is: in the call's own text."""
    assert runner.run(SEARCH, "f('kestrel')", "", 20) == [918273, "kestrel"]
    for times in (1, 5, 1000):
        assert runner.run("x = 'kestrel'", f"'kestrel ' * {times}", "kestrel", 20)
    assert runner.run(SEARCH, "f()", "", 20) is None


def test_reasons(runner):
    for program, call, reason in (
        ("while True: pass", None, "time"),
        ("1 / 0", None, "no_result"),
        ("def f(): return 'x' * 2**21", "f()", "too_long"),
        ("#" * 2**21, None, "too_long"),
    ):
        with pytest.raises(ProgramFailed) as error:
            runner.run(program, call, "", 0.3 if reason == "time" else 10)
        assert error.value.reason == reason


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "x86_64"), ("Windows", "AMD64"), ("Linux", "aarch64")])
def test_another_system_is_refused(monkeypatch, system, machine):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(UserError, match=f"only on 64-bit Linux on x86-64, not on {system} on {machine}$"):
        ProgramRunner(256)


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (
            "    _prctl(_SECCOMP, 2, ctypes.addressof(program))\n",
            "",
            "open a file, .*socket, .*fork.*execute.*signal.*trace",
        ),
        ('"getrandom": 318', '"getrandom": 318, "socket": 41', "this system would let them make a socket$"),
        ('"getrandom": 318', '"getrandom": 318, "fork": 57', "start a process .fork.$"),
        ("_REPLY.pack(status, size)", "1 / 0", "gave no result"),
        (
            "_SECCOMP, _DEATH_SIGNAL, _DUMPABLE = 38, 22,",
            "_SECCOMP, _DEATH_SIGNAL, _DUMPABLE = 38, 9999,",
            "not hold them .*9999",
        ),
        ("mmap.PROT_EXEC)", "0)", "map code, make memory executable"),
    ],
)
def test_a_sandbox_that_does_not_hold_is_noticed_before_any_program_runs(monkeypatch, tmp_path, line, instead, said):
    assert line in LAUNCHER
    broken = tmp_path / "launcher.py"
    broken.write_text(LAUNCHER.replace(line, instead))
    monkeypatch.setattr(programs, "_LAUNCHER", broken)
    with pytest.raises(UserError, match=said) as error:
        ProgramRunner(256)
    assert "\n" not in str(error.value)


def test_a_worker_that_is_locked_down_runs_programs(pool):
    assert pool.call("run", "def f(n): return n + 1", "f(1)", 10, seconds=60).result() == 2
    worker, launcher = pool.call("processes", seconds=60).result()
    assert launcher in children(worker)
    pool.close()
    wait_until_gone(worker, launcher)


def test_launcher_and_program_end_with_a_worker_that_is_killed(pool):
    worker, launcher = pool.call("processes", seconds=60).result()
    running = pool.call("run", "while True: pass", None, 600, seconds=600)
    program = wait_for_child(launcher)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(WORKER_FAILURES):
        running.result()
    wait_until_gone(worker, launcher, program)


def test_a_program_ends_with_its_launcher_and_a_worker_without_one_is_replaced(pool):
    _, launcher = pool.call("processes", seconds=60).result()
    running = pool.call("run", "import time; time.sleep(600)", None, 600, seconds=600)
    program = wait_for_child(launcher)
    os.kill(launcher, signal.SIGKILL)
    with pytest.raises(WORKER_FAILURES):
        running.result()
    wait_until_gone(launcher, program)
    assert pool.call("run", "", "1 + 1", 10, seconds=60).result() == 2


def test_without_a_worker_a_lost_launcher_is_an_error_and_the_next_call_has_another():
    first = programs.runner(128)
    os.kill(first.launcher, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="launcher of programs has ended"):
        first.run("", "1", "", 10)
    assert programs.runner(128).run("", "1", "", 10) == 1
    programs.runner(128).close()


def test_pipes_are_none_of_the_standard_streams_which_a_worker_gives_up(tmp_path):
    """Even where these were closed, so that the first pipes have their numbers."""
    script = (
        "import os, sys\n"
        "from rl_lightning.sandbox.programs import ProgramRunner\n"
        "for stream in range(3): os.close(stream)\n"
        "runner = ProgramRunner(256)\n"
        "null = os.open(os.devnull, os.O_RDWR)\n"
        "for stream in range(3): os.dup2(null, stream)\n"
        "value = runner.run('', '6 * 7', '', 10)\n"
        f"open({str(tmp_path / 'value')!r}, 'w').write(str(value))\n"
    )
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": root}, check=True)
    assert (tmp_path / "value").read_text() == "42"
