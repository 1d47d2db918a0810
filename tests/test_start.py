"""The set-up script, without setting anything up."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def start(monkeypatch, *words, status=0):
    """Run scripts/start.py as a script would be, and return its exit status and what it asked Python to run, which would end with
    `status`."""
    script = runpy.run_path(str(ROOT / "scripts" / "start.py"))
    asked: list[tuple[str, ...]] = []
    namespace = script["main"].__globals__
    namespace["python"] = lambda *words, **kwargs: asked.append(words) or status
    namespace["make_environment"] = lambda purpose: True
    monkeypatch.setattr(sys, "argv", ["start.py", *words])
    monkeypatch.chdir(ROOT)
    return script["main"](), asked


def test_a_typing_mistake_is_named_before_anything_is_installed(monkeypatch, capsys):
    status, asked = start(monkeypatch, "quikstart")
    assert (status, asked) == (2, [])
    assert "did you mean quickstart?" in capsys.readouterr().err


def test_no_word_prints_the_help(monkeypatch, capsys):
    assert start(monkeypatch) == (0, [])
    assert "python scripts/start.py quickstart" in capsys.readouterr().out


def test_the_quickstart_trains_in_a_new_directory_and_draws(monkeypatch):
    status, (fit, report) = start(monkeypatch, "quickstart", "--seed_everything=3")
    assert status == 0
    assert fit[:5] == ("-m", "rl_lightning", "fit", "--config", "configs/quickstart.yaml")
    directory = fit[5].removeprefix("--trainer.default_root_dir=")
    assert not (ROOT / directory).exists()
    assert fit[6:] == ("--seed_everything=3",)
    assert report[-1] == directory


def test_the_real_model_is_made_first_and_then_trained_like_the_quickstart(monkeypatch):
    status, (make, fit, report) = start(monkeypatch, "smollm2", "--trainer.max_steps=1")
    assert status == 0
    assert make == ("scripts/smollm2.py", "--out", "models/SmolLM2-135M-Instruct")
    assert fit[:5] == ("-m", "rl_lightning", "fit", "--config", "configs/smollm2-135m.yaml")
    directory = fit[5].removeprefix("--trainer.default_root_dir=")
    assert directory.replace("\\", "/").startswith("outputs/smollm2")
    assert not (ROOT / directory).exists()
    assert fit[6:] == (f"--model.policy.model_name_or_path={make[-1]}", "--trainer.max_steps=1")
    assert report[-1] == directory


def test_without_its_model_nothing_is_trained(monkeypatch):
    status, asked = start(monkeypatch, "smollm2", status=2)
    assert status == 2
    assert [words[0] for words in asked] == ["scripts/smollm2.py"]


def test_a_run_that_is_there_is_not_overwritten(monkeypatch, tmp_path):
    script = runpy.run_path(str(ROOT / "scripts" / "start.py"))
    asked: list[tuple[str, ...]] = []
    script["main"].__globals__.update(ROOT=tmp_path, python=lambda *words: asked.append(words) or 0)
    for name in ("smollm2", "smollm2-2"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    assert script["smollm2"]([]) == 0
    assert f"--trainer.default_root_dir={Path('outputs/smollm2-3')}" in asked[1]


@pytest.mark.parametrize("command", ["fit", "validate", "report", "plan", "chat", "tasks"])
def test_commands_are_handed_over(monkeypatch, command):
    _, asked = start(monkeypatch, command, "x")
    assert asked == [("-m", "rl_lightning", command, "x")]


def test_the_test_command_lints_types_and_tests(monkeypatch):
    _, asked = start(monkeypatch, "test")
    assert [words[1] for words in asked] == ["ruff", "ruff", "mypy", "pytest"]


def test_python_passes_the_exit_status_on(monkeypatch):
    script = runpy.run_path(str(ROOT / "scripts" / "start.py"))
    script["python"].__globals__["PYTHON"] = sys.executable
    assert script["python"]("-c", "raise SystemExit(7)") == 7
