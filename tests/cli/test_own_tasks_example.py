"""docs/own_tasks.md is true: its files are written and its commands run as they stand, with fewer steps."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

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


def in_directory(directory, words) -> str:
    words = [sys.executable, *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    done = subprocess.run(words, cwd=directory, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each command of the example prints, by its first words; and the directory."""
    directory = tmp_path_factory.mktemp("example")
    for _, block in BLOCKS:
        if block.startswith("# ") and block.split()[1].endswith((".py", ".yaml")):
            (directory / block.split()[1]).write_text(block)
    (commands,) = [block for kind, block in BLOCKS if kind == "sh"]
    found = {}
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)[1:]
        if "fit" in words:
            words += FEWER
        words = [word.replace("checkpoint-30", "checkpoint-4") for word in words]
        key = " ".join(words[2:4]) if words[0] == "-m" else words[0]
        found[key + (f" {words[-1]}" if words[-1].startswith("--") else "")] = in_directory(directory, words)
    return directory, found


def test_each_kind_of_task_is_shown_trained_compared_and_reported(said):
    directory, found = said
    assert "words.jsonl: 50 questions, verified by ExactText" in found["tasks words"]
    assert "because read as 1200; expected" in found["tasks sums"]
    assert "Calculate" in found["tasks long_sums --prompt"]
    compared = found["compare outputs/own"]
    assert all(re.search(rf"^{task} +6 ", compared, re.MULTILINE) for task in ("words", "sums", "long_sums"))
    assert "outputs/own/report.html" in found["report outputs/own"]
    assert re.search(r"score +(right|wrong)", found["chat --ckpt_path"])
    result = json.loads((directory / "outputs/own/eval_results/eval_step_4.json").read_text())
    assert {task: row["n"] for task, row in result["tasks"].items()} == {"long_sums": 6, "sums": 6, "words": 6}


def test_the_run_goes_on_and_refuses_a_file_that_has_changed(said):
    directory, _ = said
    more = [*FEWER[1:], "--trainer.max_steps=5", "--ckpt_path=last"]
    in_directory(directory, ["-m", "rl_lightning", "fit", "--config", "own.yaml", *more])
    with (directory / "words.jsonl").open("a") as file:
        file.write('{"question": "Spell this word backward (example: sun -> nus): zebra", "answer": "arbez"}\n')
    with pytest.raises(AssertionError, match=r"words.config.sha256 was '\w+' and is '\w+'"):
        in_directory(directory, ["-m", "rl_lightning", "fit", "--config", "own.yaml", *more])


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
