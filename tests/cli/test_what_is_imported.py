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
print("IMPORTED", *sys.modules, file=sys.stderr)
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


def test_serve_and_push_need_no_torch(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert not imported_by("serve", str(tmp_path)) & {"torch", "transformers", "peft", "reasoning_gym"}
    (tmp_path / "rl_lightning_export.json").write_text('{"faults": []}')
    assert not imported_by("push", str(tmp_path), "me/mine", "--dry-run") & {
        "torch",
        "transformers",
        "peft",
        "matplotlib",
    }


def test_chat_loads_nothing_of_lightning(tmp_path):
    assert "lightning" not in imported_by("chat", "--ckpt_path", str(tmp_path), status=2)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "said"), [(Terminal(), "loading torch …\n"), (io.StringIO(), "")])
def test_what_is_loaded_is_said_on_a_terminal_only(monkeypatch, stream, said):
    monkeypatch.setattr(sys, "stderr", stream)
    with quiet.loading("torch"):
        pass
    assert stream.getvalue() == said


def test_a_run_loads_no_compiler(tmp_path):
    out = f"--trainer.default_root_dir={tmp_path / 'run'}"
    imported = imported_by("fit", "--config", "quickstart", "--trainer.max_steps=1", "--data.eval_num_samples=2", out)
    assert "lightning" in imported
    assert not imported & {"wandb", "tensorboard", "IPython", "datasets", "torch._inductor.compile_fx"}


def test_workers_load_neither_torch_nor_what_draws():
    program = "import sys, rl_lightning.environments.mixture; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "reasoning_gym" in loaded
    assert not loaded & {"torch", "lightning", "transformers", "peft", "matplotlib"}


def test_garbage_is_collected_again_after_libraries_are_loaded():
    program = "import gc; from rl_lightning.cli.quiet import loading\nwith loading('torch'): import torch; print(gc.isenabled())"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(gc.isenabled())"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
