"""The set-up script, without setting anything up."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests.conftest import ROOT


def start(monkeypatch, *words):
    """Run scripts/start.py as a script would be, and return its exit status and what it asked Python to run."""
    script = runpy.run_path(str(ROOT / "scripts" / "start.py"))
    asked: list[tuple[str, ...]] = []
    namespace = script["main"].__globals__
    namespace["python"] = lambda *words, **kwargs: asked.append(words) or 0
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
