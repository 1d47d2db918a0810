"""Verifiers tried on the command line: tasks --check with --verifier, with a task or with --expected, and why they say so."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from rl_lightning.cli.main import main
from tests.conftest import ROOT

OWN = """
import time

from rl_lightning.environments import Verifier


class Even(Verifier):
    def __call__(self, expected, answer):
        return 0.5

    def check_expected(self, expected):
        pass

    def explain(self, expected, answer):
        if answer == "raise":
            raise KeyError("nothing")
        while answer == "hang":
            pass
        return f"half,\\nas {answer}"
"""


@pytest.fixture
def even(tmp_path, monkeypatch):
    (tmp_path / "own_verifier_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_verifier_of_a_test.Even"


@pytest.mark.parametrize(
    ("verifier", "expected", "answer", "lines"),
    [
        (
            "Number",
            "1,200",
            "1200.0",
            ["score   right, 1.00 of 1; expected: 1,200", "because read as 1200; expected 1200"],
        ),
        ("Number", "5", "five", ["score   wrong, 0.00", "because not a number: 'five'; expected 5"]),
        ("{class_path: Number, init_args: {units: [km/h]}}", "5", "**5 km/h**", ["also as 5 km/h", "right, 1.00"]),
        ('{"class_path": "Choice", "init_args": {"letters": "XY"}}', "X", "Y", ["because letter Y; expected X"]),
    ],
)
def test_without_a_task(verifier, expected, answer, lines, capsys):
    assert main(["tasks", "--verifier", verifier, "--expected", expected, "--check", answer]) == 0
    out = capsys.readouterr().out
    assert all(line in out for line in lines), out


def test_with_a_task_of_reasoning_gym_and_of_a_config(tmp_path, capsys):
    assert main(["tasks", "chain_sum", "--check", "about 7", "--verifier=Pattern"]) == 0
    assert "does not match 'about 7'" in capsys.readouterr().out
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"question": f"q{n}", "answer": "5"}) + "\n" for n in range(60))
    )
    file = {"path": str(tmp_path / "a.jsonl")}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"data": {"datasets": {"own": file}}}))
    words = ["tasks", "own", "--check", "5.0", "--config", str(config)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "wrong, 0.00" in out
    assert "because read as '5.0'; expected '5'" in out
    assert main([*words, "--verifier", "Number"]) == 0
    out = capsys.readouterr().out
    assert "right, 1.00" in out
    assert "because read as 5; expected 5" in out


def test_a_verifier_of_ones_own_and_explanations_that_fail(even, capsys, monkeypatch):
    monkeypatch.setattr("rl_lightning.cli.verdicts._SECONDS", 1.0)
    for answer, said in (
        ("5", "because half, as 5\n"),
        ("raise", "because the explanation raised KeyError: 'nothing'"),
        ("hang", "because the explanation: timeout"),
    ):
        assert main(["tasks", "--verifier", even, "--expected", "5", "--check", answer]) == 0
        out = capsys.readouterr().out
        assert "wrong, 0.50 of 1; expected: 5" in out
        assert said in out


def test_the_verifier_of_the_documentation(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "own_tasks.md").read_text()
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "SameLetters" in code]
    (tmp_path / "documented_verifier.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    for answer, said in (("**Dear**", "right, 1.00"), ("reader", "wrong, 0.00")):
        words = ["tasks", "--verifier", "documented_verifier.SameLetters", "--expected", "read", "--check", answer]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert said in out
        assert "; expected ['a', 'd', 'e', 'r']" in out
    shown = re.search(r"tasks --verifier Number .*?\n(.*?)\n\$", text, re.DOTALL)[1]
    assert main(["tasks", "--verifier", "Number", "--expected", "1,200", "--check", "**1200.0**"]) == 0
    assert capsys.readouterr().out.strip() == shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--expected", "5", "--check", "5"], "--expected needs --verifier"),
        (["--verifier", "Number"], "needs an answer to check"),
        (["--verifier", "Number", "--check", "5"], "needs a task by its name, or --expected"),
        (["chain_sum", "--verifier", "Number", "--expected", "5", "--check", "5"], "leave out the task's name"),
        (
            ["--verifier", "Number", "--expected", "5", "--check", "5", "--index", "1"],
            "leave out the task's name and --index",
        ),
        (["--verifier", "Number", "--expected", "five", "--check", "5"], "the expected answer is not a number: 'five'"),
        (["--verifier", "Nummer", "--expected", "5", "--check", "5"], "there are Choice, CodeTests, ExactText"),
        (["--verifier", "pathlib.Path", "--expected", "5", "--check", "5"], "not correspond to a subclass of Verifier"),
        (
            ["--verifier", "{class_path: Number, init_args: {a: 1}}", "--expected", "5", "--check", "5"],
            "'a' is not accepted",
        ),
        (
            ["--verifier", "{class_path: Number, init_args: {tolerance: -1}}", "--expected", "5", "--check", "5"],
            "verifier.tolerance: -1.0 is not allowed",
        ),
    ],
)
def test_mistakes_are_one_line(words, said, capsys):
    assert main(["tasks", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ")
    assert said in error[-1]
