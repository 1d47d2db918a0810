"""A task of a user's own, in a module that workers import quickly."""

from __future__ import annotations

import random

from rl_lightning.environments import Environment
from rl_lightning.types import Problem


class Sums(Environment):
    """A task of a user's own."""

    def __init__(self, terms: int = 2) -> None:
        self.terms, self.config = terms, {"terms": terms}

    def problem(self, seed: int) -> Problem:
        rng = random.Random(seed)
        numbers = [rng.randint(0, 99) for _ in range(self.terms)]
        return Problem(" + ".join(map(str, numbers)), expected=str(sum(numbers)))

    def verify(self, problem: Problem, answer: str) -> float:
        return float(answer == problem.expected)
