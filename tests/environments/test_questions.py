"""Questions of one's own from a file: what is read, held out and left out."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rl_lightning.environments.held_out import epoch_orders
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.question_hash import QuestionTable, question_hash
from rl_lightning.environments.questions import QuestionFile, Questions
from rl_lightning.environments.verifiers import Number
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.types import UserError
from tests.environments.own_files import Choices, Helped, Prefixed, Started, started

ROWS = [{"question": f"What is {n} + 1?", "answer": f"{n} plus one.\n#### {n + 1}", "kind": n % 3} for n in range(20)]
GOLD = {"answer_pattern": "#### (?P<answer>.+)", "verifier": Number()}


def write(path: Path, rows=ROWS) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return str(path)


def read(path: str, **settings) -> QuestionFile:
    return QuestionFile(Questions(path=path, **GOLD | settings))


def asked(file: QuestionFile) -> list[str]:
    return [file.problem(number).question for number in range(file.size)]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_questions(tmp_path, suffix):
    file = read(write(tmp_path / f"sums.{suffix}"))
    assert asked(file) == [row["question"] for row in ROWS]
    for number in range(20):
        problem = file.problem(number)
        assert int(problem.expected) == int(re.findall(r"\d+", problem.question)[0]) + 1
        assert file.verify(problem, f"{problem.expected}.0") == 1
        assert file.verify(problem, "no idea") == 0
    again = pickle.loads(pickle.dumps(file))
    assert [again.problem(number) for number in range(20)] == [file.problem(number) for number in range(20)]
    assert len(pickle.dumps(file)) < 5000, "a worker maps the file and does not get a copy"


@pytest.mark.parametrize(("kinds", "number"), [(0, 7), ([0, 2], 13), ("1", 7), ([], 0)])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_are_chosen_by_a_column(tmp_path, suffix, kinds, number):
    path = write(tmp_path / f"sums.{suffix}")
    if number:
        assert read(path, where={"kind": kinds}).size == number
        assert read(path, where={"kind": kinds}, rows=5).size == 5
    else:
        with pytest.raises(Exception, match=r"no rows with {'kind': \[\]}"):
            read(path, where={"kind": kinds})


def test_only_the_first_rows_are_read(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text(Path(write(path)).read_text() + "{broken")
    assert asked(read(str(path), rows=20)) == [row["question"] for row in ROWS]


def test_repeated_questions_count_once_and_are_named(tmp_path, caplog):
    repeated = [*ROWS, {**ROWS[0], "question": " what IS  0 + 1 "}, {**ROWS[0], "question": "What is 0 - 1?"}]
    path = write(tmp_path / "sums.jsonl", repeated)
    for _ in range(2):  # read, and found in the cache
        caplog.clear()
        assert read(path).size == 21
        assert f"{path}: 1 questions that repeat an earlier one are left out: line 21 of 1\n" in caplog.text


def test_the_evaluation_can_have_a_file_of_its_own_of_which_nothing_is_trained_on(tmp_path, caplog):
    test = [
        {**ROWS[3], "question": "what is 3 + 1"},
        *({**row, "question": row["question"] + " Now!"} for row in ROWS[:5]),
    ]
    training, evaluation = write(tmp_path / "train.jsonl"), write(tmp_path / "test.jsonl", test)
    file = read(training, eval_path=evaluation)
    assert (file.size, file.eval_items) == (25, range(19, 25))
    assert "train.jsonl: 1 questions of the evaluation are left out: line 4 of 1" in caplog.text
    hashes = [question_hash(question) for question in asked(file)]
    assert not set(hashes[:19]) & set(hashes[19:])
    assert file.describe().endswith("25 questions, of them 6 for the evaluation, verified by Number")


def test_what_is_known_of_all_questions_is_that_of_each(tmp_path):
    rows = [*ROWS, {"question": "Größe? 你好 \ufdfa", "answer": "#### 3"}]
    file = read(write(tmp_path / "sums.parquet", rows))
    table, same = file.table(), QuestionTable.of(asked(file))
    for name in ("hashes", "length", "is_ascii"):
        assert (getattr(table, name) == getattr(same, name)).all()
    assert list(table.length[:3]) == [len(row["question"]) for row in ROWS[:3]]
    assert list(table.is_ascii) == [True] * 20 + [False]


@pytest.mark.parametrize(
    "question", ["What is 5 + 7?", "a" * 50, "Größe 你好 \ufdfa", "\u0958" * 9, "😀 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "\t\n \x00"]
)
def test_no_tokenizer_makes_more_tokens_than_the_bound(question):
    tokenizer = load_tokenizer("tiny")
    tokens = len(tokenizer(question, add_special_tokens=False)["input_ids"])
    assert tokens <= QuestionTable.of([question]).most_tokens(tokenizer)[0]


def test_a_worker_is_prepared_for_every_task_and_level_by_its_verifier(tmp_path):
    files = [read(write(tmp_path / "sums.jsonl"), verifier=Started()) for _ in range(3)]
    files[0].at_level = lambda config: files[2]
    mixture = EnvironmentMixture(
        {"a": TaskSpec(environment=QuestionFile(files[0].questions)), "b": TaskSpec(environment=files[1])}
    )
    mixture.tasks["a"] = files[0]
    mixture.set_levels({"a": [{}]})
    mixture.start()
    assert list(map(id, started)) == [id(file.verifier) for file in files]


def test_a_changed_file_has_other_settings_and_an_equal_one_the_same(tmp_path):
    before = read(write(tmp_path / "sums.jsonl")).config
    assert read(write(tmp_path / "copy.jsonl")).config == before
    after = read(write(tmp_path / "sums.jsonl", [{**ROWS[0], "answer": "#### 2"}, *ROWS[1:]])).config
    assert {k for k in before if before[k] != after[k]} == {"sha256"}
    verifier = read(str(tmp_path / "copy.jsonl"), verifier=Number(tolerance=1)).config
    assert {k for k in before if before[k] != verifier[k]} == {"verifier"}


def test_a_file_is_read_once_for_the_same_settings_and_code(tmp_path, monkeypatch):
    monkeypatch.setenv("RL_LIGHTNING_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "sums.jsonl")
    of = {"question": "question"}, {"where": {"kind": 0}}, {"verifier": Number(tolerance=1)}, {"rows": 3}
    found = [read(path, **settings)._index.directory for settings in of]
    assert len(set(found)) == 4
    assert [read(path, **settings)._index.directory for settings in of] == found
    shutil.rmtree(tmp_path / "cache")
    assert read(path)._index.directory.is_dir()


def test_a_cache_that_cannot_be_written_is_said_once_and_done_without(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RL_LIGHTNING_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert read(write(tmp_path / "sums.jsonl")).size == 20
    assert caplog.text.count("files of questions are read again at every start") == 1


def test_the_working_is_shown_in_worked_examples(tmp_path):
    file = read(write(tmp_path / "sums.jsonl"), thinking="answer")
    assert file.thinking(file.problem(0)) == "0 plus one.\n#### 1"
    plain = read(write(tmp_path / "sums.jsonl"))
    assert plain.thinking(plain.problem(0)) is None


@pytest.mark.parametrize(
    ("row", "settings", "question", "expected"),
    [
        ({"question": "q", "answer": 5}, {}, "q", "5"),
        ({"question": "q", "answer": 5.0}, {}, "q", "5.0"),
        ({"question": "q", "answer": True}, {}, "q", "true"),
        ({"question": "q", "answer": [1, "b"]}, {}, "q", '[1, "b"]'),
        ({"question": "q\r\nr\r\n", "answer": " x \r\n"}, {}, "q\nr", "x"),
        ({"prompt": [{"role": "user", "content": "q"}], "answer": "x"}, {"question": "prompt"}, "q", "x"),
        (
            {"prompt": [{"content": "q", "role": "user"}], "reward_model": {"style": "rule", "ground_truth": "72"}},
            {"question": "prompt", "answer": "reward_model.ground_truth"},
            "q",
            "72",
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_what_the_columns_may_hold(tmp_path, suffix, row, settings, question, expected):
    if suffix == "parquet" and isinstance(row.get("answer"), list):
        pytest.skip("a column of Parquet has one type")
    file = QuestionFile(Questions(path=write(tmp_path / f"a.{suffix}", [row]), **settings))
    assert (file.problem(0).question, file.problem(0).expected) == (question, expected)


def test_a_subclass_makes_the_question_out_of_several_columns(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "Which?", "choices": ["this", "that"], "right": 1}])
    assert Choices(Questions(path=path)).problem(0).question == "Which?\nA. this\nB. that"
    assert Choices(Questions(path=path)).problem(0).expected == "B"


def test_a_subclass_with_other_settings_is_another_task(tmp_path):
    of = Questions(path=write(tmp_path / "sums.jsonl"), **GOLD)
    first, second = Prefixed(of, "en: "), Prefixed(of, "de: ")
    assert (first.problem(0).question, second.problem(0).question) == ("en: What is 0 + 1?", "de: What is 0 + 1?")
    assert first.config != second.config
    assert Prefixed(of, "en: ")._index.directory == first._index.directory


def test_a_verifier_without_a_text_is_the_same_in_every_run(tmp_path):
    path = write(tmp_path / "sums.jsonl")
    files = [read(path, verifier=Helped(helper)) for helper in (Started(), Started(), Choices.__name__)]
    assert files[0].config == files[1].config != files[2].config
    assert files[0]._index.directory == files[1]._index.directory != files[2]._index.directory
    with pytest.raises(UserError, match="cannot be copied into worker processes"):
        read(path, verifier=Helped(lambda: None))


def test_the_same_question_with_another_answer_is_kept_and_named(tmp_path, caplog):
    rows = [{"question": "Evaluate 3", "answer": "3"}, {"question": "Evaluate 3!", "answer": "6"}]
    path = write(tmp_path / "a.jsonl", [*rows, {"question": "evaluate 3", "answer": "3"}])
    assert QuestionFile(Questions(path=path)).size == 2
    assert "1 questions that repeat an earlier one are left out: line 3 of 1\n" in caplog.text
    assert "1 questions have another answer than an earlier, similar one: line 2 of 1\n" in caplog.text


def test_a_damaged_index_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("RL_LIGHTNING_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "sums.jsonl")
    directory = read(path)._index.directory
    for damage in ("index.json", "rows.jsonl", "starts.npy"):
        (directory / damage).write_bytes(b"")
        assert asked(read(path)) == [row["question"] for row in ROWS]


def test_only_old_indexes_are_removed_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RL_LIGHTNING_CACHE", str(tmp_path))
    index = read(write(tmp_path / "sums.jsonl"))._index.directory
    others = [tmp_path / "questions" / name for name in ("my_data", "new_questions_x", "a" * 64)]
    for directory in others:
        directory.mkdir()
        (directory / "file").write_text("")
    for directory in (index, *others):
        os.utime(directory, (0, 0))
    read(write(tmp_path / "more.jsonl", ROWS[:5]))
    assert [directory.exists() for directory in (index, *others)] == [False, True, False, False]


def test_tokens_are_counted_once_and_prompts_made_only_near_the_limit(tmp_path):
    tokenizer = load_tokenizer("tiny")
    rows = [{"question": "ä" * n, "answer": "1"} for n in range(1, 60)]
    file, counted = QuestionFile(Questions(path=write(tmp_path / "a.jsonl", rows))), []

    def question(number):
        counted.append(number)
        return file.problem(number).question

    numbers = np.arange(59)
    for _ in range(2):
        found = file.table().tokens(tokenizer, numbers, question)
        assert list(found) == [len(tokenizer(row["question"], add_special_tokens=False)["input_ids"]) for row in rows]
    assert counted == list(range(59))
    template = PromptTemplate(tokenizer)
    mixture = EnvironmentMixture({"a": TaskSpec(environment=file)})
    for limit in (30, 60, 90):
        short = [n for n in range(59) if len(template.token_ids(file.problem(n).question)) <= limit]
        assert list(epoch_orders(mixture, 0, frozenset(), template, limit)["a"].items) == short
