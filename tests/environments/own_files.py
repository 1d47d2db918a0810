"""Files of questions and verifiers of a user's own, in a module that workers import quickly."""

from __future__ import annotations

from rl_lightning.environments.questions import QuestionFile
from rl_lightning.environments.verifiers import Number


class Started(Number):
    """Notes that it was started."""

    def start(self):
        started.append(self)


started: list[Started] = []


class Choices(QuestionFile):
    """Questions with their choices in columns of their own."""

    def reshape(self, row):
        choices = "\n".join(f"{letter}. {text}" for letter, text in zip("AB", row["choices"], strict=True))
        return {"question": f"{row['question']}\n{choices}", "answer": "AB"[row["right"]]}


class Prefixed(QuestionFile):
    """Has a setting of its own, before every question."""

    def __init__(self, questions, prefix):
        self.prefix = prefix
        super().__init__(questions)

    def reshape(self, row):
        return {**row, "question": self.prefix + row["question"]}


class Helped(Number):
    """A verifier with an attribute that has no text of its own."""

    def __init__(self, helper):
        super().__init__()
        self.helper = helper
