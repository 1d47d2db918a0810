"""Questions of one's own from a file: what is read, and what is refused."""

from __future__ import annotations

import json
import pickle
import re

import pandas as pd
import pytest

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.question_file import QuestionFile
from rl_lightning.environments.verifiers import Choice, Number
from rl_lightning.types import UserError

ROWS = [{"question": f"What is {n} + 1?", "answer": f"{n} plus one.\n#### {n + 1}", "kind": n % 2} for n in range(20)]
GOLD = {"answer_pattern": "#### (?P<answer>.+)", "verifier": Number()}


def write(path, rows=ROWS):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return str(path)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_questions(tmp_path, suffix):
    file = QuestionFile(write(tmp_path / f"sums.{suffix}"), **GOLD)
    assert file.size == 20
    asked = {file.problem(n).question: file.problem(n) for n in range(20)}
    assert asked.keys() == {row["question"] for row in ROWS}
    assert all(int(p.expected) == int(re.findall(r"\d+", p.question)[0]) + 1 for p in asked.values())
    problem = file.problem(3)
    assert file.verify(problem, f"{problem.expected}.0") == 1
    assert file.verify(problem, "no idea") == 0
    again = pickle.loads(pickle.dumps(file))
    assert [again.problem(seed) for seed in range(20)] == [file.problem(seed) for seed in range(20)]


def test_rows_are_chosen_by_a_column_and_repeated_questions_count_once(tmp_path, caplog):
    repeated = [*ROWS, {**ROWS[0], "question": " what IS  0 + 1 "}, {**ROWS[0], "question": "What is 0 - 1?"}]
    assert QuestionFile(write(tmp_path / "sums.jsonl", repeated), where={"kind": 0}, **GOLD).size == 11
    assert "questions that repeat an earlier one are left out: row 21 of row 1\n" in caplog.text


def test_a_worker_is_prepared_for_every_task_and_level_by_its_verifier(tmp_path):
    class Started(Number):
        def start(self):
            started.append(self)

    started = []
    files = [QuestionFile(write(tmp_path / "sums.jsonl"), **GOLD | {"verifier": Started()}) for _ in range(3)]
    files[0].at_level = lambda config: files[2]
    mixture = EnvironmentMixture({"a": TaskSpec(environment=files[0]), "b": TaskSpec(environment=files[1])})
    mixture.set_levels({"a": [{}]})
    mixture.start()
    assert list(map(id, started)) == [id(file.verifier) for file in files]


def test_a_changed_file_has_other_settings(tmp_path):
    before = QuestionFile(write(tmp_path / "sums.jsonl"), **GOLD).config
    after = QuestionFile(write(tmp_path / "sums.jsonl", ROWS[1:]), **GOLD).config
    assert {k for k in before if before[k] != after[k]} == {"sha256"}


def test_the_working_is_shown_in_worked_examples(tmp_path):
    file = QuestionFile(write(tmp_path / "sums.jsonl"), thinking="kind", **GOLD)
    assert file.thinking(file.problem(0)) in ("0", "1")
    plain = QuestionFile(write(tmp_path / "sums.jsonl"), **GOLD)
    assert plain.thinking(plain.problem(0)) is None


@pytest.mark.parametrize(
    ("name", "text", "settings", "said"),
    [
        ("a.txt", "", {}, "must end in .jsonl, .csv, .parquet"),
        ("a.jsonl", None, {}, "No such file"),
        ("a.parquet", None, {}, "No such file"),
        ("a.csv", None, {}, "No such file"),
        ("a.parquet", "not one", {}, "not a Parquet file"),
        ("a.jsonl", "{", {}, "line 1 is not JSON"),
        ("a.jsonl", "[1]", {}, "line 1 is not an object"),
        ("a.jsonl", "\n\n", {}, "no rows"),
        ("a.jsonl", '{"question": "q"}', {}, "row 1 has no 'answer'; it has question"),
        ("a.csv", "question,reply\nq,a\n", {}, "row 1 has no 'answer'; it has question, reply"),
        (
            "a.jsonl",
            '{"question": "q", "answer": "five"}',
            {"verifier": Number()},
            "row 1: Number: the expected answer is not",
        ),
        (
            "a.jsonl",
            '{"question": "q", "answer": "F"}',
            {"verifier": Choice()},
            "row 1: Choice: the expected answer is none of",
        ),
        (
            "a.jsonl",
            '{"question": "q", "answer": "5"}',
            {"answer_pattern": "(?P<answer>x)"},
            "row 1: answer_pattern finds nothing",
        ),
        ("a.jsonl", '{"question": "q", "answer": "5"}', {"answer_pattern": "x"}, "has no group"),
        ("a.jsonl", '{"question": "q", "answer": "5"}', {"answer_pattern": "("}, "is not a regular expression"),
        ("a.jsonl", '{"question": "q", "answer": "5", "k": 1}', {"where": {"k": 2}}, "no rows with {'k': 2}"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(tmp_path, name, text, settings, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        QuestionFile(str(tmp_path / name), **settings)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
