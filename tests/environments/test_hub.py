"""Data sets by the package datasets: of a directory, and of the hub, whose answers are made up here."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from rl_lightning.environments.questions import QuestionFile, Questions
from rl_lightning.environments.verifiers import Number
from rl_lightning.types import UserError

datasets = pytest.importorskip("datasets")

GOLD = {"answer_pattern": "#### (?P<answer>.+)", "verifier": Number()}


def rows(numbers):
    return [{"question": f"What is {n} + 1?", "answer": f"so\n#### {n + 1:,}", "level": n % 3} for n in numbers]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A data set as the hub has it: a split in each file."""
    path = tmp_path_factory.mktemp("gsm8k")
    for split, numbers in (("train", range(990, 1020)), ("test", range(1015, 1025))):
        pd.DataFrame(rows(numbers)).to_parquet(path / f"{split}.parquet")
    return str(path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setenv("RL_LIGHTNING_CACHE", str(tmp_path / "cache"))


def read(path, **settings) -> QuestionFile:
    return QuestionFile(Questions(path=path, **GOLD | settings))


def test_a_split_is_trained_on_and_another_evaluates(directory, caplog):
    file = read(directory, split="train", eval_split="test")
    assert (file.size, file.eval_items) == (35, range(25, 35))
    asked = [file.problem(n).question for n in range(35)]
    assert len(set(asked)) == 35
    assert asked[0] == "What is 990 + 1?"
    assert file.problem(10).expected == "1,001"
    assert f"{directory} (train): 5 questions of the evaluation are left out: row 26 of 1" in caplog.text


@pytest.mark.parametrize("streamed", [False, True])
def test_a_filter_and_a_number_of_rows(directory, streamed):
    whole = read(directory, where={"level": [0, 2]})
    few = read(directory, where={"level": [0, 2]}, rows=7 if streamed else 20)
    assert whole.size == 20
    assert [few.problem(n) for n in range(few.size)] == [whole.problem(n) for n in range(7 if streamed else 20)]


def test_the_same_rows_are_read_once_and_changed_ones_again(directory, tmp_path):
    before = read(directory)._index.directory
    assert read(directory)._index.directory == before
    (tmp_path / "other").mkdir()
    pd.DataFrame(rows(range(50))).to_parquet(tmp_path / "other" / "train.parquet")
    assert read(str(tmp_path / "other"))._index.directory != before


def test_what_is_asked_of_the_hub(monkeypatch):
    asked = []

    def load(path, **kwargs):
        asked.append((path, kwargs))
        return datasets.Dataset.from_list(rows(range(5) if kwargs["split"] == "train" else range(5, 8)))

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read("openai/gsm8k", subset="main", eval_split="test", revision="abc").size == 8
    common = {"name": "main", "revision": "abc", "streaming": False}
    assert asked == [("openai/gsm8k", {**common, "split": split}) for split in ("train", "test")]
    asked.clear()
    assert read("openai/gsm8k", rows=3).size == 3
    assert asked == [("openai/gsm8k", {"name": None, "revision": None, "streaming": True, "split": "train"})]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": "validation"}, "Unknown split \"validation\". Should be one of ['train', 'test']"),
        ({"subset": "hard"}, "hard"),
        ({"eval_split": "train"}, "eval_split: is the split that is trained on"),
        ({"split": ""}, "split: empty; name the split"),
        ({"eval_path": "a.jsonl"}, "eval_path: is for files"),
        ({"question": "ask"}, "row 1: has no column 'ask'; it has question, answer, level (and 29 more"),
    ],
)
def test_mistakes_are_one_line(directory, settings, said):
    with pytest.raises(UserError) as error:
        read(directory, **settings)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    def load(path, **kwargs):
        raise ConnectionError(f"Couldn't reach '{path}' on the Hub\n(LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=r"openai/gsm8k: Couldn't reach 'openai/gsm8k' on the Hub \(Local"):
        read("openai/gsm8k")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs? the package datasets: pip install -e .\[hub\]"):
        read("openai/gsm8k")
