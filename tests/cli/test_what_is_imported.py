"""Start-up: a command imports only what it needs, and says on a terminal that it loads the rest."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from rl_lightning.cli import quiet
from tests.report.constructed import write_run

HEAVY = ("torch", "lightning", "transformers", "peft", "bitsandbytes", "reasoning_gym", "matplotlib", "scipy", "numpy")
PROGRAM = """
import sys
from rl_lightning.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
print("IMPORTED", *sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
sys.exit(status)
"""


def imported_by(*args: str, status: int = 0) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *args], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return set(done.stderr.rpartition("IMPORTED")[2].split())


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        *([verb, "--help"] for verb in ("fit", "validate", "plan", "chat", "export", "push", "serve", "tasks")),
    ],
    ids=" ".join,
)
def test_help_imports_no_library(args):
    assert not imported_by(*args) & set(HEAVY)


def test_a_mistake_in_the_words_imports_no_library():
    for args in (["fti"], ["export", "--too", "x"], ["tasks", "chain_sum", "--level"]):
        assert not imported_by(*args, status=2) & set(HEAVY)


@pytest.mark.parametrize("args", [["tasks"], ["tasks", "spell_backward"], ["tasks", "products", "--levels"]])
def test_tasks_of_reasoning_gym_need_no_torch(args):
    assert not imported_by(*args) & {"torch", "lightning", "transformers", "peft", "bitsandbytes"}


def test_a_report_and_a_comparison_need_no_torch(tmp_path):
    run = str(tmp_path / "run")
    write_run(tmp_path / "run", steps=4, evaluations=(0, 4))
    assert not imported_by("report", run) & {"torch", "lightning", "transformers", "reasoning_gym"}
    at_start = f"{run}/eval_results/eval_step_0.json"
    out = str(tmp_path / "comparison")
    assert not imported_by("compare", run, at_start, "--out", out) & {"torch", "lightning", "transformers"}


def test_chat_loads_nothing_of_lightning(tmp_path):
    assert "lightning" not in imported_by("chat", "--ckpt_path", str(tmp_path), status=2)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "said"), [(Terminal(), "loading torch …\n"), (io.StringIO(), "")])
def test_what_is_loaded_is_said_on_a_terminal_only(monkeypatch, stream, said):
    monkeypatch.setattr(sys, "stderr", stream)
    quiet.loading("torch")
    assert stream.getvalue() == said
