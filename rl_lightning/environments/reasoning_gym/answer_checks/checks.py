"""Refuse answers that cannot be right, before the task's own scorer sees them.

reasoning-gym's scorers were written for honest answers. A model that is trained on their scores finds the ones that run its text
as Python, that hang on a large exponent, or that give full marks to a wrong answer. So each answer must have its task's form
first. Two guarantees: an answer that passes and is wrong gets less than 1.0 from the scorer, and an answer that is right passes.
The checks take time linear in the answer, never raise and never evaluate text. docs/scoring.md says what each of them is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rl_lightning.environments.reasoning_gym.answer_checks import formulas, grammar, moves, numbers
from rl_lightning.environments.reasoning_gym.answer_checks.logic import propositional_logic

Rule = Callable[[str, dict[str, Any]], str | None]
"""Takes a stripped answer and its problem's item of reasoning-gym; returns a reason to refuse the answer, or None."""

RULES: dict[str, Rule] = {
    "advanced_geometry": numbers.advanced_geometry,
    "binary_matrix": grammar.binary_matrix,
    "boxnet": moves.boxnet,
    "calendar_arithmetic": numbers.calendar_arithmetic,
    "chain_sum": numbers.separated,
    "codeio": grammar.codeio,
    "coin_flip": numbers.coin_flip,
    "complex_arithmetic": numbers.complex_arithmetic,
    "countdown": formulas.countdown,
    "cryptarithm": grammar.cryptarithm,
    "decimal_arithmetic": numbers.decimal_arithmetic,
    "decimal_chain_sum": numbers.separated,
    "figlet_font": grammar.figlet_font,
    "fraction_simplification": numbers.fraction_simplification,
    "game_of_life": grammar.game_of_life,
    "game_of_life_halting": grammar.game_of_life_halting,
    "graph_color": grammar.graph_color,
    "group_anagrams": grammar.lists_of_words,
    "gsm_symbolic": numbers.gsm_symbolic,
    "intermediate_integration": formulas.integration,
    "jugs": moves.jugs,
    "kakurasu": grammar.kakurasu,
    "knights_knaves": grammar.knights_knaves,
    "letter_jumble": grammar.letter_jumble,
    "n_queens": grammar.n_queens,
    "number_format": numbers.number_format,
    "number_sorting": numbers.number_sorting,
    "palindrome_partitioning": grammar.lists_of_words,
    "polynomial_equations": numbers.polynomial_equations,
    "polynomial_multiplication": formulas.polynomial_multiplication,
    "pool_matrix": numbers.pool_matrix,
    "power_function": numbers.power_function,
    "prime_factorization": numbers.prime_factorization,
    "products": numbers.separated,
    "propositional_logic": propositional_logic,
    "puzzle24": formulas.puzzle24,
    "quantum_lock": grammar.quantum_lock,
    "rectangle_count": numbers.separated,
    "rubiks_cube": moves.rubiks_cube,
    "rush_hour": moves.rush_hour,
    "simple_integration": formulas.integration,
    "sokoban": moves.sokoban,
    "spell_backward": grammar.spell_backward,
    "spiral_matrix": grammar.spiral_matrix,
    "string_insertion": grammar.string_insertion,
    "survo": grammar.survo,
    "time_intervals": numbers.time_intervals,
    "tower_of_hanoi": moves.tower_of_hanoi,
    "word_sorting": grammar.word_sorting,
}
"""The tasks with a check of their own. For the others the limits on text are enough."""

_EXAMPLES = ("example_answer", "example_correct_answer", "possible_answer")
"""Keys of the metadata that hold a right answer when the item itself has none."""

_SHORTEST_LIMIT, _LONGEST_EXCESS, _TIMES_ORACLE, _WITHOUT_ORACLE = 1_000, 100_000, 20, 5_000
"""Limits in characters: an answer may be 20 times as long as the right one, always 1,000, never 100,000 more than the right one;
5,000 if there is no right one to compare with."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def refuse_answer(task: str, answer: str, entry: dict[str, Any]) -> str | None:
    """Say why the task's scorer must not see this answer; None if it may.

    Args:
        task: a reasoning-gym task name.
        answer: the model's answer.
        entry: the problem's item of reasoning-gym: question, answer, metadata.

    Returns:
        a short reason in snake_case, such as "too_long" or "wrong_numbers", with which the answer scores 0; or None.
    """
    if (reason := _refuse_text(answer, entry)) is not None:
        return reason
    rule = RULES.get(task)
    return None if rule is None else rule(answer.strip(), entry)


def _refuse_text(answer: str, entry: dict[str, Any]) -> str | None:
    if not answer or answer.isspace():
        return "no_answer"
    if len(answer) > _longest(entry):
        return "too_long"
    if _CONTROL.search(answer):
        return "control_character"
    try:
        answer.encode()
    except UnicodeEncodeError:  # a lone surrogate, which cannot be written to a file or sent to a process
        return "not_unicode"
    return None


def _longest(entry: dict[str, Any]) -> int:
    known = [entry.get("answer"), *(entry.get("metadata", {}).get(key) for key in _EXAMPLES)]
    oracle = next((len(str(answer)) for answer in known if answer), 0)
    if not oracle:
        return _WITHOUT_ORACLE
    return max(_SHORTEST_LIMIT, min(_TIMES_ORACLE * oracle, oracle + _LONGEST_EXCESS))
