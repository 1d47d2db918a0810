"""Look at an answer before the task's own scorer does, and refuse what no right answer can contain.

reasoning-gym's scorers were written for honest answers. A model that is trained on their verdict finds those that run its
text as Python, that hang on a large exponent, and that give full marks for a wrong answer. So here each answer first has to
have its task's form. Two promises: an answer that is let through and wrong earns less than 1.0 from the scorer, and an
answer that is right is let through. The checks take linear time, raise nothing and evaluate no text. What each of them is
for is in docs/scoring.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rl_lightning.tasks import answer_formulas, answer_grammar, answer_moves, answer_numbers
from rl_lightning.tasks.answer_logic import propositional_logic

Rule = Callable[[str, dict[str, Any]], str | None]
"""From a stripped answer and its problem's entry to a reason to refuse it, or None."""

RULES: dict[str, Rule] = {
    "advanced_geometry": answer_numbers.advanced_geometry,
    "binary_matrix": answer_grammar.binary_matrix,
    "boxnet": answer_moves.boxnet,
    "calendar_arithmetic": answer_numbers.calendar_arithmetic,
    "codeio": answer_grammar.codeio,
    "coin_flip": answer_numbers.coin_flip,
    "complex_arithmetic": answer_numbers.complex_arithmetic,
    "countdown": answer_formulas.countdown,
    "cryptarithm": answer_grammar.cryptarithm,
    "decimal_arithmetic": answer_numbers.decimal_arithmetic,
    "figlet_font": answer_grammar.figlet_font,
    "fraction_simplification": answer_numbers.fraction_simplification,
    "game_of_life": answer_grammar.game_of_life,
    "game_of_life_halting": answer_grammar.game_of_life_halting,
    "graph_color": answer_grammar.graph_color,
    "group_anagrams": answer_grammar.lists_of_words,
    "gsm_symbolic": answer_numbers.gsm_symbolic,
    "intermediate_integration": answer_formulas.integration,
    "jugs": answer_moves.jugs,
    "kakurasu": answer_grammar.kakurasu,
    "knights_knaves": answer_grammar.knights_knaves,
    "letter_jumble": answer_grammar.letter_jumble,
    "n_queens": answer_grammar.n_queens,
    "number_format": answer_numbers.number_format,
    "number_sorting": answer_numbers.number_sorting,
    "palindrome_partitioning": answer_grammar.lists_of_words,
    "polynomial_equations": answer_numbers.polynomial_equations,
    "polynomial_multiplication": answer_formulas.polynomial_multiplication,
    "pool_matrix": answer_numbers.pool_matrix,
    "power_function": answer_numbers.power_function,
    "prime_factorization": answer_numbers.prime_factorization,
    "propositional_logic": propositional_logic,
    "puzzle24": answer_formulas.puzzle24,
    "quantum_lock": answer_grammar.quantum_lock,
    "rubiks_cube": answer_moves.rubiks_cube,
    "rush_hour": answer_moves.rush_hour,
    "simple_integration": answer_formulas.integration,
    "sokoban": answer_moves.sokoban,
    "spell_backward": answer_grammar.spell_backward,
    "spiral_matrix": answer_grammar.spiral_matrix,
    "string_insertion": answer_grammar.string_insertion,
    "survo": answer_grammar.survo,
    "time_intervals": answer_numbers.time_intervals,
    "tower_of_hanoi": answer_moves.tower_of_hanoi,
    "word_sorting": answer_grammar.word_sorting,
}
"""The tasks with a check of their own; for the others the limits on text are enough."""

_EXAMPLES = ("example_answer", "example_correct_answer", "possible_answer")
"""Where the metadata keeps a right answer when the entry has none."""

_SHORTEST_LIMIT, _LONGEST_EXCESS, _TIMES_ORACLE, _WITHOUT_ORACLE = 1_000, 100_000, 20, 5_000
"""Characters: an answer may be 20 times as long as the oracle's, but 1,000 always and never 100,000 more."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def refuse_answer(task: str, answer: str, entry: dict[str, Any]) -> str | None:
    """Why the task's scorer must not be asked about this answer, or None where it may.

    Args:
        task: a reasoning-gym task name.
        answer: the model's answer.
        entry: the problem's item of reasoning-gym: question, answer, metadata.

    Returns:
        A short reason in snake_case, such as "too_long" or "wrong_numbers": the answer is worth nothing.
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
    except UnicodeEncodeError:  # a lone surrogate, which no file or process can be sent
        return "not_unicode"
    return None


def _longest(entry: dict[str, Any]) -> int:
    known = [entry.get("answer"), *(entry.get("metadata", {}).get(key) for key in _EXAMPLES)]
    oracle = next((len(str(answer)) for answer in known if answer), 0)
    if not oracle:
        return _WITHOUT_ORACLE
    return max(_SHORTEST_LIMIT, min(_TIMES_ORACLE * oracle, oracle + _LONGEST_EXCESS))
