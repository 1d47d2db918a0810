"""docs/own_tasks.md is true: its files are written and its commands run as they stand, with fewer steps."""

from __future__ import annotations

import json
import re
import runpy
import shlex

import pytest
import yaml

from rl_lightning.cli.main import main
from rl_lightning.environments.questions import Questions
from rl_lightning.environments.verifiers import Choice
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "own_tasks.md").read_text()
EXAMPLE = TEXT.partition("## From a file")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", EXAMPLE, re.DOTALL)
FEWER = [
    "--trainer.max_steps=4",
    "--fixed_eval.fixed_eval_steps=2",
    "--data.eval_num_samples=6",
    "--checkpoint.save_steps=2",
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The example's files."""
    found = tmp_path_factory.mktemp("example")
    for _, block in BLOCKS:
        if block.startswith("# ") and block.split()[1].endswith((".py", ".yaml")):
            (found / block.split()[1]).write_text(block)
    return found


@pytest.fixture
def run(directory, monkeypatch, capsys):
    """Runs a command in the directory: its status, and what it printed."""
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(str(directory))

    def command(words):
        if words[0] != "-m":
            runpy.run_path(words[0], run_name="__main__")
            return 0, ""
        status = main(words[2:])
        said = capsys.readouterr()
        return status, said.out + said.err

    return command


def test_each_kind_of_task_is_shown_trained_compared_and_reported_and_a_changed_file_refused(directory, run):
    (commands,) = [block for kind, block in BLOCKS if kind == "sh"]
    found = {}
    for line in commands.splitlines():
        words = [word.replace("checkpoint-30", "checkpoint-4") for word in shlex.split(line, comments=True)[1:]]
        status, found[" ".join(words)] = run([*words, *FEWER] if "fit" in words else words)
        assert status == 0, line
    words_said, checked, prompt, _, reported, compared, chatted = [
        said for words, said in found.items() if "-m" in words
    ]
    assert "words.jsonl: 50 questions, verified by ExactText" in words_said
    assert "because read as 1200; expected" in checked
    assert "Calculate" in prompt
    assert all(re.search(rf"^{task} +6 ", compared, re.MULTILINE) for task in ("words", "sums", "long_sums"))
    assert "outputs/own/report.html" in reported
    assert re.search(r"score +(right|wrong)", chatted)
    result = json.loads((directory / "outputs/own/eval_results/eval_step_4.json").read_text())
    assert {task: row["n"] for task, row in result["tasks"].items()} == {"long_sums": 6, "sums": 6, "words": 6}
    again = [
        "-m",
        "rl_lightning",
        "fit",
        "--config",
        "own.yaml",
        *FEWER[1:],
        "--trainer.max_steps=5",
        "--ckpt_path=last",
    ]
    assert run(again)[0] == 0
    with (directory / "words.jsonl").open("a") as file:
        file.write('{"question": "Spell this word backward (example: sun -> nus): zebra", "answer": "arbez"}\n')
    status, said = run(again)
    assert status == 2
    assert re.search(r"words.config.sha256 was '\w+' and is '\w+'", said)


def test_the_settings_in_the_text_are_those_there_are():
    table = TEXT.partition("| setting | meaning |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.strip().splitlines()[1:])))
    assert named == {*Questions.__dataclass_fields__, "weight"}
    for kind, block in re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL):
        if kind == "yaml" and "datasets" in block and not block.startswith("#"):
            for spec in yaml.safe_load(block)["data"]["datasets"].values():
                assert spec.keys() <= {*named, "class_path", "init_args"}


def test_the_class_that_makes_questions_of_several_columns(tmp_path):
    (code,) = [code for kind, code in re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL) if "class Choices" in code]
    namespace: dict = {}
    exec(code, namespace)
    rows = [{"question": "Which is even?", "choices": ["1", "2", "3"], "answer": 1}]
    (tmp_path / "mmlu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem = namespace["Choices"](Questions(path=str(tmp_path / "mmlu.jsonl"), verifier=Choice())).problem(0)
    assert (problem.question, problem.expected) == ("Which is even?\nA. 1\nB. 2\nC. 3", "B")
