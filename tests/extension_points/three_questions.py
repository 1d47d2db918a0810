"""A task of one's own in a few lines, in a module that workers import quickly."""

from __future__ import annotations

from rl_lightning.environments.environment import Environment
from rl_lightning.types import Problem

QUESTIONS = [("Capital of France?", "Paris"), ("Capital of Italy?", "Rome"), ("Capital of Spain?", "Madrid")]


class ThreeQuestions(Environment):
    """Capitals, in any case; half a point for the right first letter."""

    def problem(self, seed):
        question, answer = QUESTIONS[seed % 3]
        return Problem(f"{question} ({seed // 3})", expected=answer, difficulty={"letters": len(answer)})

    def verify(self, problem, answer):
        if answer.lower() == problem.expected.lower():
            return 1.0
        return 0.5 * (answer[:1] == problem.expected[:1])

    def refuse(self, problem, answer):
        return None if answer.isalpha() else "not_a_word"
