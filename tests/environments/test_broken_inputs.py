"""Broken files and environments: each is refused in a line with its place, or counted and named where a run can go on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from rl_lightning.data import PromptDataModule
from rl_lightning.environments import Environment, TaskSpec
from rl_lightning.environments.questions import QuestionFile, Questions
from rl_lightning.environments.verifiers import Choice, Number
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.types import UserError
from tests.environments.faulty_tasks import Ends, Exits, Keys, Slow, Wrong

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(20)]
LINES = [json.dumps(row) for row in ROWS]


def with_line(number: int, line: str | bytes, end: bytes = b"\n") -> bytes:
    """Twenty good lines, but for one."""
    lines: list[bytes] = [each.encode() for each in LINES]
    lines[number - 1] = line.encode() if isinstance(line, str) else line
    return end.join(lines) + end


REFUSED = [
    ("a.txt", b"", {}, "must end in .jsonl, .csv, .parquet"),
    (
        "a.json",
        b"[]",
        {},
        "must end in .jsonl, .csv, .parquet; of one JSON array, write each element on a line of its own",
    ),
    ("a.jsonl", None, {}, "No such file or directory"),
    ("a.parquet", None, {}, "No such file or directory"),
    ("a.csv", None, {}, "No such file or directory"),
    ("a.jsonl", b"", {}, "no rows that can be used"),
    ("a.jsonl", b"\n\n", {}, "no rows that can be used"),
    ("a.csv", b"", {}, "no rows that can be used"),
    (
        "a.jsonl",
        with_line(17, "{"),
        {},
        "line 17: not JSON (Expecting property name enclosed in double quotes, at character",
    ),
    ("a.jsonl", with_line(17, "{", b"\r\n"), {}, "line 17: not JSON"),
    ("a.jsonl", with_line(17, "[" * 100_000), {}, "line 17: not JSON"),
    ("a.jsonl", with_line(17, '{"question": "q", "answer": ' + "9" * 5000 + "}"), {}, "line 17: not JSON"),
    ("a.jsonl", with_line(17, "[1]"), {}, "line 17: not an object with columns"),
    ("a.jsonl", with_line(17, b'{"question": "\xff", "answer": "5"}'), {}, "line 17: not UTF-8 (byte 15 of the line)"),
    (
        "a.jsonl",
        with_line(17, '{"question": "\\ud800", "answer": "5"}'),
        {},
        "line 17: 'question' has half a character",
    ),
    ("a.jsonl", with_line(17, '{"question": "q"}'), {}, "line 17: has no column 'answer'; it has question"),
    ("a.jsonl", with_line(17, '{"question": "q", "answer": ""}'), {}, "line 17: 'answer' is empty"),
    ("a.jsonl", with_line(17, '{"question": " ", "answer": "5"}'), {}, "line 17: 'question' is empty"),
    ("a.jsonl", with_line(17, '{"question": "q", "answer": null}'), {}, "line 17: 'answer' is missing"),
    ("a.jsonl", with_line(17, '{"question": "q", "answer": NaN}'), {}, "line 17: 'answer' is nan"),
    ("a.jsonl", with_line(17, '{"question": 5, "answer": "5"}'), {}, "line 17: 'question' is a number, not a text"),
    ("a.jsonl", with_line(17, '{"question": ["q"], "answer": "5"}'), {}, "line 17: 'question' is a list, not a text"),
    (
        "a.jsonl",
        with_line(
            17,
            json.dumps(
                {"question": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "answer": "5"}
            ),
        ),
        {},
        "line 17: 'question' is a chat of 2 messages, not one of the user",
    ),
    (
        "a.jsonl",
        with_line(17, json.dumps({"question": "q" * 2_000_000, "answer": "5"})),
        {},
        "line 17: 'question' has more than 100,000 characters",
    ),
    ("a.jsonl", b"[" + b"5," * 6_000_000, {}, "line 1: longer than 10 MB; each row is a line of its own"),
    ("a.jsonl", with_line(17, '{"question": "q", "answer": "five"}'), {"verifier": Number()}, "line 17: Number: "),
    ("a.jsonl", with_line(17, '{"question": "q", "answer": "F"}'), {"verifier": Choice()}, "line 1: Choice: "),
    (
        "a.jsonl",
        with_line(1, LINES[0]),
        {"verifier": Slow()},
        "line 17: Slow: takes longer than 3 s for the data's own answer '17'",
    ),
    (
        "a.jsonl",
        with_line(1, LINES[0]),
        {"verifier": Ends()},
        "line 17: Ends: ends its process at the data's own answer '17'",
    ),
    (
        "a.jsonl",
        with_line(1, LINES[0]),
        {"answer_pattern": "(?P<answer>1.)"},
        "line 1: answer_pattern finds nothing in '1'",
    ),
    (
        "a.jsonl",
        with_line(17, json.dumps({"question": "q", "answer": "a" * 40 + "b"})),
        {"answer_pattern": "^(?P<answer>(a|aa)+$|[0-9]+)"},
        "line 17: answer_pattern ",
    ),
    ("a.jsonl", with_line(1, LINES[0]), {"split": "test"}, "split: is for data sets of the hub"),
    ("a.jsonl", with_line(1, LINES[0]), {"answer_pattern": "x"}, "has no group (?P<answer>…)"),
    ("a.jsonl", with_line(1, LINES[0]), {"answer_pattern": "("}, "is not a regular expression"),
    ("a.jsonl", with_line(1, LINES[0]), {"where": {"kind": 1}}, "line 1: has no column 'kind'"),
    ("a.jsonl", with_line(1, LINES[0]), {"where": {"answer": 99}}, "no rows with {'answer': 99}"),
    (
        "a.jsonl",
        with_line(1, LINES[0]),
        {"question": "ask"},
        "line 1: has no column 'ask'; it has question, answer (and 19 more",
    ),
    ("a.jsonl", with_line(1, LINES[0]), {"rows": -1}, "rows: -1 is not allowed"),
    ("a.jsonl", with_line(1, LINES[0]), {"subset": "main"}, "subset: is for data sets of the hub"),
    ("a.jsonl", with_line(1, LINES[0]), {"eval_path": "nowhere.csv"}, "nowhere.csv: No such file"),
    ("a.csv", b"question,answer\nq,5\nr,6,7\n", {}, "line 3: 3 fields, but the first line names 2"),
    ("a.csv", b"question;answer\nq;5\n", {}, "line 1: the separator is a semicolon; save it with commas"),
    ("a.csv", b"question,question\nq,5\n", {}, "line 1: two columns have the name 'question'"),
    ("a.csv", b"question,answer\nq,5\n\xff,6\n", {}, "line 3: not UTF-8 (byte 1 of the line)"),
    ("a.csv", b'question,answer\n"q,5\n' + b"r" * 200_000, {}, "line 3: not CSV (field larger than field limit"),
    ("a.parquet", b"not one", {}, "not a Parquet file"),
    ("a.parquet", b"PAR1" + b"\0" * 100 + b"PAR1", {}, "not a Parquet file"),
]


def test_faults_of_the_users_own_code_are_one_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(with_line(1, LINES[0]))
    with pytest.raises(UserError, match="line 1: Exits: SystemExit: 3"):
        QuestionFile(Questions(path=str(path), verifier=Exits()))
    with pytest.raises(UserError, match="line 1: reshape raised KeyError: 'nothing'"):
        Keys(Questions(path=str(path)))
    with pytest.raises(UserError, match="line 2: Slow: takes longer"):
        QuestionFile(Questions(path=str(path), verifier=Slow("2"), bad_rows="leave_out"))


@pytest.fixture(autouse=True)
def short_limits(monkeypatch):
    monkeypatch.setattr("rl_lightning.environments.questions.checks._ANSWER_SECONDS", 3.0)


@pytest.mark.parametrize(("name", "content", "settings", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_used_is_refused_in_a_line_with_its_place(tmp_path, name, content, settings, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        QuestionFile(Questions(path=str(tmp_path / name), **settings))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + with_line(1, LINES[0])),
        ("crlf.jsonl", with_line(1, LINES[0], b"\r\n")),
        ("no_end.jsonl", with_line(1, LINES[0]).rstrip()),
        ("upper.JSONL", with_line(1, LINES[0])),
        ("bom.csv", b"\xef\xbb\xbf" + pd.DataFrame(ROWS).to_csv(index=False).encode()),
        ("crlf.csv", pd.DataFrame(ROWS).to_csv(index=False, lineterminator="\r\n").encode()),
    ],
)
def test_what_editors_and_excel_write_is_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    file = QuestionFile(Questions(path=str(tmp_path / name)))
    assert [file.problem(n).question for n in range(file.size)] == [row["question"] for row in ROWS]


def test_rows_that_cannot_be_used_are_left_out_counted_and_named(tmp_path, caplog):
    broken = ["{", '{"question": "q"}', json.dumps({"question": "q", "answer": "five"}), '{"question": 1, "answer": 2}']
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*LINES, *broken]))
    file = QuestionFile(Questions(path=str(path), bad_rows="leave_out", verifier=Number()))
    assert file.size == 20
    assert "4 rows cannot be used and are left out (line 21: not JSON (" in caplog.text
    assert "line 22: has no column 'answer'" in caplog.text
    assert " and 1 more)" in caplog.text
    assert "line 23: Number: the expected answer is not a number: 'five'" in caplog.text


FAULTS = {
    "raises": "its first problems all fail: ZeroDivisionError: no such problem",
    "hangs": "its first problems all fail: no problem within 1 s",
    "another type": "returned dict, not a Problem",
    "no text": "has the question 5, not a text",
    "answer is a number": "not a text",
    "unpicklable": "cannot be copied into worker processes: ",
    "changes": "it must be a pure function of its seed",
    "verify raises": "its verifier gives raised_RuntimeError to the expected answer",
    "verify hangs": "its verifier gives too_slow to the expected answer",
    "verify gives a text": "its verifier gives raised_ValueError to the expected answer",
    "half": "its verifier gives 0.5 to the expected answer",
    "refuse raises": "refuse raised ZeroDivisionError: division by zero",
}


def set_up(environment: Environment, **kwargs) -> PromptDataModule:
    settings = {
        "num_workers": 1,
        "problem_seconds": 1.0,
        "system_prompt": "",
        "eval_num_samples": 4,
        "prompts_per_step": 4,
    }
    data = PromptDataModule({"wrong": TaskSpec(environment=environment)}, **settings | kwargs)
    data.trainer = SimpleNamespace(lightning_module=GRPOModule(policy=PolicyConfig("tiny"), score_seconds=1))
    try:
        data.setup("fit")
        return data
    finally:
        data.teardown("fit")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_an_environment_is_one_line_before_training(fault):
    with pytest.raises(UserError) as error:
        set_up(Wrong(fault))
    line = str(error.value).strip().splitlines()[-1]
    assert "datasets.wrong: " in line
    assert FAULTS[fault] in line


def test_problems_that_fail_now_and_then_are_counted_and_others_take_their_place():
    data = set_up(Wrong("sometimes raises"), num_workers=0)
    batch = next(iter(data.train_dataloader()))
    assert len(batch.problems) == 4
    assert batch.skipped["raised"] > 0


def test_an_environment_without_fault_is_accepted(caplog):
    assert len(set_up(Wrong()).eval_problems) == 4
    assert not caplog.text
