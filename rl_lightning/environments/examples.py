"""Worked examples for the prompts of a task: the user's own, and problems of the task with their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rl_lightning.environments.answer_formats import AnswerFormat
from rl_lightning.environments.chat_text import Turn
from rl_lightning.environments.environment import GenerationFailed
from rl_lightning.environments.mixture import EnvironmentMixture
from rl_lightning.environments.prompts import PromptSettings, WorkedExample
from rl_lightning.environments.question_hash import question_hash
from rl_lightning.environments.stream import ATTEMPTS, MakeProblem, first_items
from rl_lightning.types import Problem, UserError


def worked_examples(
    mixture: EnvironmentMixture,
    settings: PromptSettings,
    seed: int,
    held_out: frozenset[bytes],
    make: MakeProblem | None = None,
) -> dict[str, list[Turn]]:
    """The examples of each task, as questions and the assistant's texts that answer them.

    They have item seeds of their own, and the answers are verified. Drawn ones depend on the task's config, `seed` and the held-out
    questions alone.

    Args:
        mixture: the environments.
        settings: how many, the user's own, and the answer's format.
        seed: selects them.
        held_out: `question_hash` of the questions that must not be shown.
        make: generates a problem; by default the mixture, in this process.

    Returns:
        by task; tasks without examples are left out.

    Raises:
        UserError: examples of one's own for an unknown task, or with a held-out question; a task whose problems have no known
            answer; or a format in which an answer cannot be written.
    """
    if unknown := sorted(settings.own_examples.keys() - mixture.tasks.keys()):
        raise UserError(
            f"data.own_examples.{unknown[0]}: not a task of data.datasets, which has {', '.join(mixture.tasks)}"
        )
    found: dict[str, list[Turn]] = {}
    for task in mixture.tasks:
        own = settings.own_examples.get(task, [])
        for number, example in enumerate(own):
            if question_hash(example.question) in held_out:
                raise UserError(
                    f"data.own_examples.{task}[{number}]: {example.question[:60]!r} is a question of the evaluation; show another"
                )
        drawn = _drawn(mixture, task, settings.examples - len(own), seed, held_out, make or mixture.problem)
        found[task] = [_turn(example, settings.format) for example in (*own, *drawn)]
    return {task: turns for task, turns in found.items() if turns}


def shown_hashes(examples: Mapping[str, Sequence[Turn]]) -> frozenset[bytes]:
    """The hashes of the examples' questions, which must not be trained on."""
    return frozenset(question_hash(question) for turns in examples.values() for question, _ in turns)


def _drawn(
    mixture: EnvironmentMixture, task: str, number: int, seed: int, held_out: frozenset[bytes], make: MakeProblem
) -> Iterator[WorkedExample]:
    questions: set[str] = set()
    for slot in range(max(number, 0) * ATTEMPTS):
        item = first_items(mixture, task, "examples", seed, slot)
        if item is None:
            break
        try:
            problem = make(task, item, slot, None)
        except GenerationFailed:
            continue  # the next seed takes its place
        new = problem.question not in questions and question_hash(problem.question) not in held_out
        if new and (example := _worked(mixture, problem)) is not None:
            questions.add(problem.question)
            yield example
        if len(questions) == number:
            return
    if number > 0:
        raise UserError(
            f"data.examples: {task} has only {len(questions)} of {number} problems whose answer is known and right, and that are "
            f"not held out for evaluation; lower data.examples, or give your own in data.own_examples.{task}"
        )


def _worked(mixture: EnvironmentMixture, problem: Problem) -> WorkedExample | None:
    """The problem with its answer; None where that is not known, or the task's own verifier does not accept it."""
    if not problem.expected or mixture.verify_all([(problem, problem.expected)]) != [1.0]:
        return None
    thinking = mixture.tasks[problem.task].thinking(problem) or ""
    return WorkedExample(problem.question, problem.expected, thinking)


def _turn(example: WorkedExample, form: AnswerFormat) -> Turn:
    return example.question.strip(), form.write(example.thinking, example.answer)
