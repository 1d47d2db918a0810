"""Score one answer, and say why it has that score."""

from __future__ import annotations

from rl_lightning.cli.single_prompt import Settings
from rl_lightning.environments.plain_answers import plain_answers
from rl_lightning.scoring import Scorer
from rl_lightning.types import Problem

_SECONDS = 10.0
"""Time limit of the verifier, in seconds."""


def verdict(settings: Settings, problem: Problem, text: str) -> str:
    """Score a completion by its task's verifier, and say what was expected.

    Args:
        settings: have the task, and the format of answers.
        problem: what was asked.
        text: the completion.
    """
    scorer = Scorer(settings.mixture(problem.task), workers=1, seconds=_SECONDS, answers=settings.prompt.format)
    try:
        (score,) = scorer([problem], [text])
    finally:
        scorer.close()
    right = "right" if score.exact == 1 else "wrong"
    why = f", {score.failure}" if score.failure else ""
    return f"score   {right}, {score.partial:.2f} of 1{why}; expected: {problem.expected}"


def check(settings: Settings, task: str, index: int, answer: str) -> str:
    """What the task's verifier says of an answer to its `index`-th evaluation problem; for `tasks NAME --check ANSWER`.

    Raises:
        UserError: there is no such task or problem, or the answer cannot be written in the format of answers.
    """
    problem = settings.problem(task, index)
    parts = [problem.question.strip(), "", f"answer  {answer}"]
    if plain := plain_answers(problem, answer):
        parts.append(f"also as {', '.join(plain)}")
    return "\n".join([*parts, verdict(settings, problem, settings.prompt.format.write("", answer))])


def describe_own(settings: Settings, task: str) -> str:
    """A task of a config: what it is, its settings, and two problems of the evaluation with their answers.

    Raises:
        UserError: there is no such task.
    """
    environment = settings.mixture(task).tasks[task]
    config = "\n".join(f"    {name}: {value}" for name, value in environment.config.items())
    parts = [environment.describe(), f"Settings:\n\n{config or '    none'}"]
    for number in range(2):
        problem = settings.problem(task, number)
        question = "\n".join(f"    {line}" for line in problem.question.strip().splitlines())
        parts.append(f"Problem {number + 1}:\n\n{question}\n\nAnswer: {problem.expected}")
    return "\n\n".join(parts)
