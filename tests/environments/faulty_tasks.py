"""Tasks and verifiers with one fault each, in a module that workers import quickly."""

from __future__ import annotations

import time

from rl_lightning.environments import Environment, Verifier
from rl_lightning.environments.questions import QuestionFile
from rl_lightning.types import Problem


class Slow(Verifier):
    """Sleeps at one answer."""

    def __init__(self, at="17"):
        self.at = at

    def __call__(self, expected, answer):
        time.sleep(3600 * (answer == self.at))
        return float(expected == answer)


class Ends(Verifier):
    """Ends its process at one answer."""

    def __call__(self, expected, answer):
        return float(expected == answer) if answer != "17" else __import__("os")._exit(1)


class Exits(Verifier):
    """Raises what is no Exception."""

    def __call__(self, expected, answer):
        raise SystemExit(3)


class Keys(QuestionFile):
    """Reshapes by a column that is not there."""

    def reshape(self, row):
        return {"question": row["nothing"], "answer": "5"}


class Wrong(Environment):
    """An environment with one fault."""

    def __init__(self, fault: str = "none") -> None:
        self.fault, self.calls = fault, 0
        self.config = {"fault": fault}
        if fault == "unpicklable":
            self.lock = lambda: None

    def problem(self, seed):
        self.calls += 1
        if self.fault == "raises" or (self.fault == "sometimes raises" and seed % 3):
            raise ZeroDivisionError("no such problem")
        if self.fault == "hangs":
            time.sleep(3600)
        if self.fault == "another type":
            return {"question": "q"}
        if self.fault == "no text":
            return Problem(5, expected="5")
        if self.fault == "answer is a number":
            return Problem(f"What is {seed}?", expected=seed)
        return Problem(f"What is {seed + self.calls * (self.fault == 'changes')}?", expected=str(seed))

    def verify(self, problem, answer):
        if self.fault == "verify raises":
            raise RuntimeError("no")
        if self.fault == "verify hangs":
            time.sleep(3600)
        return (
            "no number"
            if self.fault == "verify gives a text"
            else float(answer == problem.expected) / 2 ** (self.fault == "half")
        )

    def refuse(self, problem, answer):
        return 1 / 0 if self.fault == "refuse raises" else None
