"""Mistakes in tasks of one's own: each is one line that names the task and the key, and none is a traceback."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path

import pytest
import yaml

from rl_lightning.cli.main import main

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"

MODULE = '''
from rl_lightning.environments import Environment, QuestionFile, Verifier
from rl_lightning.types import Problem


class Counted(Environment):
    """Say the number."""

    def __init__(
        self,
        text: str = "",
        number: float = 0.5,
        many: list[dict[str, str | list[float | None]]] = [],
        or_null: int | None = 5,
    ) -> None:
        self.config = {"text": text, "number": number, "many": many, "or_null": or_null}

    def problem(self, seed):
        return Problem(f"Say {seed}.", expected=str(seed))

    def verify(self, problem, answer):
        return float(answer == problem.expected)


class Raises(Counted):
    def __init__(self, name: str) -> None:
        raise {"KeyError": KeyError, "ValueError": ValueError, "RuntimeError": RuntimeError}[name]("no\\nluck")


class StartRaises(Counted):
    def start(self):
        raise RuntimeError("no luck\\nat all")


class Same(Verifier):
    def __call__(self, expected, answer):
        return float(expected == answer)


class Unpicklable(Same):
    def __init__(self) -> None:
        self.same = lambda: True


class VerifierRaises(Same):
    def __init__(self) -> None:
        raise KeyError("no luck")


class VerifierStartRaises(Same):
    def start(self):
        raise RuntimeError("no luck\\nat all")


class Choices(QuestionFile):
    pass
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "mistaken_tasks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mistaken_tasks", raising=False)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # Lightning's handler has the stderr of an earlier test
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(20)]
    Path("words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(data, *more, command=("tasks", "t")):
        Path("own.yaml").write_text(data if data.startswith("data") else f"data: {{datasets: {{t: {data}}}}}")
        return main([*command, "--config", str(QUICKSTART), "--config", "own.yaml", *more])

    return run


def lines(capsys):
    """The lines on stderr from the mistake on; before it, libraries may warn of something else."""
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    said = "error: " + said.partition("error: ")[2]
    return re.sub(r"^error: own\.yaml, line \d+: ", "error: ", said).splitlines()


NULL = ["verifier", "where", "weight", "rows", "levels", "question", "answer", "config", "bad_rows"]
REASONING = "{{class_path: ReasoningGymTask, init_args: {{name: composite, config: {}}}}}"
COMPOSITE = "datasets.composite.config.datasets"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        *((f"{{path: words.jsonl, {key}: null}}", f"data.datasets.t.{key}: null is not allowed") for key in NULL),
        ("null", "data.datasets.t: null is not allowed; it must be settings by name"),
        ("[1]", "data.datasets.t: [1] is not allowed; it must be settings by name"),
        (
            "{path: words.jsonl, verifier: {class_path: Number, init_args: {units: null}}}",
            "data.datasets.t.verifier.init_args.units: null is not allowed",
        ),
        (
            "{class_path: ReasoningGymTask, init_args: {name: gcd, config: null}}",
            "data.datasets.t.environment.init_args.config: null is not allowed",
        ),
        (
            "{path: words.jsonl, verifier: mistaken_tasks.Unpicklable}",
            "datasets.t.verifier: cannot be copied into worker",
        ),
        (
            "{path: words.jsonl, verifier: mistaken_tasks.VerifierStartRaises}",
            "datasets.t: start raised RuntimeError: no luck (",
        ),
        (
            "{path: words.jsonl, verifier: mistaken_tasks.VerifierRaises}",
            "mistaken_tasks.VerifierRaises: its constructor raised KeyError: 'no luck' (",
        ),
        (
            "{path: words.jsonl, verifier: {class_path: JSONValue, init_args: {schema: {$schema: 5}}}}",
            "verifier.schema: not a JSON Schema (its $schema 5 is not a text)",
        ),
        (REASONING.format("{datasets: [gcd]}"), f"{COMPOSITE}[0]: 'gcd' is not allowed; it must be a task by its name"),
        (
            "{class_path: mistaken_tasks.Counted, environment: {class_path: mistaken_tasks.Raises}}",
            "data.datasets.t: class_path and environment exclude each other",
        ),
        (
            "{class_path: mistaken_tasks.Choices, path: words.jsonl}",
            "data.datasets.t.path: of a QuestionFile of your own it belongs under init_args.questions",
        ),
        (
            "{path: words.jsonl, qestion: a}",
            "data.datasets.t.qestion: no such setting; did you mean question? there are:",
        ),
        (
            "{path: words.jsonl, verifier: {class_path: Number, init_args: {unit: [a]}}}",
            "data.datasets.t.verifier.init_args.unit: no such setting; did you mean units?",
        ),
        ("{path: words.jsonl, rows: many}", "data.datasets.t.rows: 'many' is not allowed; it must be a whole number"),
        ("{path: words.jsonl, verifier: Numbr}", "data.datasets.t.verifier: there is no class 'Numbr'"),
    ],
)
def test_a_mistake_is_one_line_with_its_task_and_key(own, capsys, data, said):
    assert own(data) == 2
    (line,) = lines(capsys)
    assert line.startswith(f"error: {said}")


@pytest.mark.parametrize("name", ["KeyError", "ValueError", "RuntimeError"])
def test_what_a_constructor_raises_is_shown_with_its_place(own, tmp_path, capsys, name):
    assert own(f"{{class_path: mistaken_tasks.Raises, init_args: {{name: {name}}}}}") == 2
    (said,) = lines(capsys)
    assert said.startswith(f"error: mistaken_tasks.Raises: its constructor raised {name}: ")
    number = next(n for n, line in enumerate(MODULE.splitlines(), 1) if '"KeyError": KeyError' in line)
    assert said.endswith(f"({tmp_path / 'mistaken_tasks.py'}, line {number})")


def test_what_an_environment_raises_in_its_worker_is_one_line(own, capsys):
    of_fit = "--trainer.max_steps=1", "--trainer.default_root_dir=run", "--data.num_workers=1"
    assert own("{class_path: mistaken_tasks.StartRaises}", *of_fit, command=("fit",)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: own.yaml, line 1: datasets.t: start raised RuntimeError: no luck (")
    assert not any("Traceback" in line for line in said)


VALUE = (
    '{t: {class_path: mistaken_tasks.Counted, init_args: {text: %s, number: 1e-3, many: [{a: "3", b: [1e-3, null]}]}}}'
)


@pytest.mark.parametrize(("written", "text"), [('"12"', "12"), ("2024-01-01", "2024-01-01"), ('"null"', "null")])
def test_values_are_read_as_in_a_file(own, capsys, written, text):
    value = VALUE % written
    said = []
    for data, more in ((f"data: {{datasets: {value}}}", []), ("data: {}", [f"--data.datasets={value}"])):
        assert own(data, *more) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert f"text: {text}\n    number: 0.001\n    many: [{{'a': '3', 'b': [0.001, None]}}]\n    or_null: 5" in said[0]


@pytest.mark.parametrize(
    ("data", "more"),
    [
        ("data: {}", ["--data.datasets=files/tasks.yaml"]),
        ("data: {}", ["--data=files/data.yaml"]),
        ("data: files/data.yaml", []),
        ("data: {datasets: files/tasks.yaml}", []),
    ],
)
def test_a_class_path_stands_beside_weight_in_every_file(own, capsys, data, more):
    Path("files").mkdir()
    tasks = {"t": {"class_path": "mistaken_tasks.Counted", "init_args": {"or_null": None}, "weight": 2}}
    Path("files/tasks.yaml").write_text(yaml.safe_dump(tasks))
    Path("files/data.yaml").write_text(yaml.safe_dump({"datasets": tasks}))
    assert own(data, *more) == 0
    assert "or_null: None" in capsys.readouterr().out
