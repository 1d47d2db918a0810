"""Settings of a task whose questions and answers come from a file, or from a data set of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rl_lightning.environments.verifier import Verifier
from rl_lightning.environments.verifiers import ExactText

FILES = (".jsonl", ".csv", ".parquet")
"""How the names of files end that are read without the package datasets."""

Cell = str | int | float | bool


@dataclass(kw_only=True)
class Questions:
    """Where questions and answers are read, and what decides whether an answer is right."""

    path: str = ""
    """A .jsonl, .csv or .parquet file, or a data set of the hub, such as openai/gsm8k (the extra [hub])."""

    subset: str = ""
    """Of a hub data set: its configuration, such as main."""

    split: str = "train"
    """Of a hub data set: the split to train on."""

    revision: str = ""
    """Of a hub data set: a commit or tag, so that it stays the same."""

    eval_path: str = ""
    """A second file, which the evaluation's questions come from; empty: they are held out of `path`."""

    eval_split: str = ""
    """Of a hub data set: the split that the evaluation's questions come from; empty: they are held out of `split`."""

    question: str = "question"
    """The column of the question; a.b is the field b of the column a. A list with one chat message counts as its text."""

    answer: str = "answer"
    """The column of the answer."""

    thinking: str = ""
    """The column of the working, for worked examples; empty for none."""

    answer_pattern: str = ""
    """A regular expression with a group (?P<answer>…) that finds the answer in its column, such as "#### (?P<answer>.+)" for GSM8K;
    empty: the whole text."""

    where: dict[str, Cell | list[Cell]] = field(default_factory=dict)
    """Column to the value, or the values, of which a row must have one to be used."""

    rows: int = 0
    """Only the first so many of these rows, of which a hub data set then downloads no more; 0: all."""

    bad_rows: Literal["refuse", "leave_out"] = "refuse"
    """What happens where a row cannot be used, such as one without an answer: an error that names it, or a warning."""

    verifier: Verifier = field(default_factory=ExactText)
    """Decides whether an answer is right."""

    @property
    def is_file(self) -> bool:
        """Whether `path` is a file, and not the name of a hub data set."""
        return Path(self.path).suffix.lower() in (*FILES, ".json", ".txt", ".tsv", ".gz", ".arrow", ".xlsx", ".zip")
