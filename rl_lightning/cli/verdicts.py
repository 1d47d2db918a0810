"""Score one answer, and say why it has that score."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import jsonargparse

from rl_lightning.cli.single_prompt import Settings
from rl_lightning.cli.users_mistakes import users_mistakes
from rl_lightning.environments import verifiers
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.environments.one_problem import OneProblem
from rl_lightning.environments.plain_answers import plain_answers
from rl_lightning.environments.questions.checks import refused_answers
from rl_lightning.environments.verifier import Verifier
from rl_lightning.scoring import Scorer
from rl_lightning.types import Problem, UserError

_SECONDS = 10.0
"""Time limit of the verifier, in seconds."""


def verdict(settings: Settings, problem: Problem, text: str, is_answer: bool = False) -> str:
    """Score a completion by its task's verifier, and say what was expected and why.

    Args:
        settings: have the task, and the format of answers.
        problem: what was asked.
        text: the completion.
        is_answer: whether it is the answer alone.
    """
    scorer = Scorer(settings.mixture(problem.task), workers=1, seconds=_SECONDS, answers=settings.prompt.format)
    try:
        (score,) = scorer.score_answers([problem], [text]) if is_answer else scorer([problem], [text])
        because = scorer.explain(problem, score)
    finally:
        scorer.close()
    right = "right" if score.exact == 1 else "wrong"
    why = f", {score.failure}" if score.failure else ""
    line = f"score   {right}, {score.partial:.2f} of 1{why}; expected: {problem.expected}"
    return f"{line}\nbecause {because}" if because else line


def check(settings: Settings, problem: Problem, answer: str) -> str:
    """What the problem's verifier says of an answer; for `tasks NAME --check ANSWER`."""
    parts = [problem.question.strip(), ""] if problem.question else []
    parts.append(f"answer  {answer}")
    if plain := plain_answers(problem, answer):
        parts.append(f"also as {', '.join(plain)}")
    return "\n".join([*parts, verdict(settings, problem, answer, is_answer=True)])


def check_by(verifier: Verifier, settings: Settings, problem: Problem, answer: str) -> str:
    """The same as `check`, by another verifier than that of the problem's task.

    Raises:
        UserError: the problem has no expected answer, or none that the verifier can compare with.
    """
    if problem.expected is None:
        raise UserError(f"tasks: {problem.task} has no expected answers, and a verifier compares with one")
    if wrong := refused_answers(verifier, [problem.expected])[0]:
        raise UserError(f"--verifier: {type(verifier).__name__}: {wrong}")
    problem = replace(problem, task=problem.task or "expected", level=None)
    own = TaskSpec(environment=OneProblem(problem, verifier))
    return check(replace(settings, datasets={problem.task: own}), problem, answer)


def read_verifier(value: str) -> Verifier:
    """The verifier that --verifier names, as a config names it.

    Args:
        value: a class, such as Number or my_package.MyVerifier, or YAML or JSON with class_path and init_args.

    Raises:
        UserError: there is no such class, or it does not take these settings.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--verifier", type=Verifier)
    try:
        with users_mistakes():
            return cast(Verifier, parser.instantiate_classes(parser.parse_args([f"--verifier={value}"])).verifier)
    except jsonargparse.ArgumentError as error:
        reason = " ".join(str(error).split()).partition(" Given value type:")[0].removeprefix('Parser key "verifier": ')
        raise UserError(
            f"--verifier: {reason}; there are {', '.join(verifiers.__all__)}, and your own by their path, such as "
            "my_package.MyVerifier"
        ) from error


def describe_own(settings: Settings, task: str) -> str:
    """A task of a config: what it is, its settings, and two problems of the evaluation with their answers.

    Raises:
        UserError: there is no such task.
    """
    environment = settings.mixture(task).tasks[task]
    config = "\n".join(f"    {name}: {value}" for name, value in environment.config.items())
    parts = [environment.describe(), f"Settings:\n\n{config or '    none'}"]
    for number, problem in enumerate(settings.problems(task, 2)):
        question = "\n".join(f"    {line}" for line in problem.question.strip().splitlines())
        parts.append(f"Problem {number + 1}:\n\n{question}\n\nAnswer: {problem.expected}")
    return "\n\n".join(parts)
