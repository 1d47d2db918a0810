"""Leave out problems whose answer by reasoning-gym is wrong, or is not the only right one where its scorer takes no other.

docs/scoring.md has the shares, and how they were found: `scripts/check_oracles.py` compares upstream's answers with those of
independent solvers.
"""

from __future__ import annotations

from rl_lightning.environments.reasoning_gym.problem_checks import (
    dates,
    games,
    knights,
    logic,
    numbers,
    people,
    programs,
    words,
)
from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle

PROBLEM_RULES: dict[str, Oracle] = {
    "aiw": people.aiw,
    "basic_arithmetic": numbers.basic_arithmetic,
    "caesar_cipher": words.caesar_cipher,
    "calendar_arithmetic": dates.calendar_arithmetic,
    "codeio": programs.codeio,
    "decimal_arithmetic": numbers.decimal_arithmetic,
    "emoji_mystery": words.emoji_mystery,
    "family_relationships": people.family_relationships,
    "figlet_font": words.figlet_font,
    "gsm_symbolic": numbers.gsm_symbolic,
    "knight_swap": knights.knight_swap,
    "mahjong_puzzle": games.mahjong_puzzle,
    "needle_haystack": words.needle_haystack,
    "number_filtering": numbers.number_filtering,
    "power_function": numbers.power_function,
    "propositional_logic": logic.propositional_logic,
    "quantum_lock": games.quantum_lock,
    "string_manipulation": words.string_manipulation,
    "survo": games.survo,
    "syllogism": logic.syllogism,
    "time_intervals": dates.time_intervals,
    "tsumego": games.tsumego,
}
"""The tasks that have such problems."""


def refuse_problem(task: str, entry: Item) -> str | None:
    """Say why a problem must not be asked; None if it may.

    Args:
        task: a reasoning-gym task name.
        entry: the problem's item of reasoning-gym: question, answer, metadata.

    Raises:
        ValueError: the question has a form that the task's rule does not know.
    """
    rule = PROBLEM_RULES.get(task)
    return None if rule is None else rule(entry)
