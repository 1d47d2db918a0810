"""Checks of answers that are words, lists, grids or JSON.

Four upstream scorers `eval` such answers; others score any text, ignore what they cannot read, or do not compare lengths.
"""

from __future__ import annotations

import json
import math
import re
from operator import itemgetter
from typing import Any, NamedTuple

_GRID = re.compile(r"\d{1,6}(?:\s+\d{1,6})*", re.ASCII)
_INTEGERS = r"-?\d{1,9}(?:,-?\d{1,9})*"
_LIST_OF_INTEGERS = re.compile(rf"\[{_INTEGERS}\]|\({_INTEGERS}\)|{_INTEGERS}", re.ASCII)
_LISTS_OF_INTEGERS = re.compile(rf"\[\[{_INTEGERS}\](?:,\[{_INTEGERS}\])*\]", re.ASCII)
_INTEGERS_BETWEEN_SPACES = re.compile(r"-?\d{1,9}(?:\s+-?\d{1,9})*", re.ASCII)
_LETTERS = re.compile(r"[A-Z]+")
_LIST_OF_LETTERS = re.compile(r"""\[(?:'[A-Z]'|"[A-Z]")(?:,(?:'[A-Z]'|"[A-Z]"))*\]""")
_BOARD = re.compile(r"[Q_](?:\s+[Q_])*")
_ROW = r"""\[(?:'[Q_]'|"[Q_]")(?:,(?:'[Q_]'|"[Q_]"))*\]"""
_LIST_OF_ROWS = re.compile(rf"\[{_ROW}(?:,{_ROW})*\]")


def _compact(text: str) -> str:
    return "".join(text.split())


def binary_matrix(answer: str, entry: dict[str, Any]) -> str | None:
    """A grid of whole numbers or a list of lists of them; upstream runs anything else as Python."""
    return None if _GRID.fullmatch(answer) or _LISTS_OF_INTEGERS.fullmatch(_compact(answer)) else "not_a_grid"


def spiral_matrix(answer: str, entry: dict[str, Any]) -> str | None:
    """Whole numbers between spaces or in a list; upstream runs anything else as Python."""
    plain = _INTEGERS_BETWEEN_SPACES.fullmatch(answer)
    return None if plain or _LIST_OF_INTEGERS.fullmatch(_compact(answer)) else "not_a_list_of_numbers"


def string_insertion(answer: str, entry: dict[str, Any]) -> str | None:
    """Capital letters or a list of them; upstream runs anything else as Python."""
    return None if _LETTERS.fullmatch(answer) or _LIST_OF_LETTERS.fullmatch(_compact(answer)) else "not_letters"


def n_queens(answer: str, entry: dict[str, Any]) -> str | None:
    """A board of Q and _ or a list of its rows; upstream runs anything else as Python."""
    return None if _BOARD.fullmatch(answer) or _LIST_OF_ROWS.fullmatch(_compact(answer)) else "not_a_board"


class _DuplicateKey(ValueError):
    """A key occurs twice; a JSON reader would use the last value."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise _DuplicateKey
    return dict(pairs)


NOT_JSON = object()
_MAX_JSON_DEPTH = 100


def read_json(text: str) -> Any:
    """Return the JSON value, or NOT_JSON if the text is not JSON, is nested too deeply, or has a key twice."""
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError):
        return NOT_JSON
    level, depth = [value], 0
    while level and depth <= _MAX_JSON_DEPTH:
        below = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level, depth = [child for children in below for child in children], depth + 1
    return NOT_JSON if level else value


def is_list_of_strings(value: Any) -> bool:
    """Whether a JSON value is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def lists_of_words(answer: str, entry: dict[str, Any]) -> str | None:
    """A JSON list of lists of strings; upstream also sorts the letters of a string, or the keys of an object."""
    value = read_json(answer)
    return None if isinstance(value, list) and all(map(is_list_of_strings, value)) else "not_a_list_of_lists"


def game_of_life(answer: str, entry: dict[str, Any]) -> str | None:
    """A board of the right size; upstream ignores extra rows and columns."""
    value, right = read_json(answer), json.loads(entry["answer"])
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        return "not_a_grid"
    if any(type(cell) is not int for row in value for cell in row):
        return "not_a_grid"
    return None if [len(row) for row in value] == [len(row) for row in right] else "wrong_shape"


def game_of_life_halting(answer: str, entry: dict[str, Any]) -> str | None:
    """The right one of True and False; upstream gives full marks to any text."""
    return None if answer.strip("'\". ").lower() == entry["answer"].lower() else "wrong_words"


def graph_color(answer: str, entry: dict[str, Any]) -> str | None:
    """A JSON object with a number for each vertex and nothing else; upstream also accepts a list."""
    value = read_json(answer)
    if not isinstance(value, dict) or any(type(color) is not int for color in value.values()):
        return "not_a_coloring"
    return (
        None
        if value.keys() == {str(vertex) for vertex in entry["metadata"]["puzzle"]["vertices"]}
        else "wrong_vertices"
    )


_MAX_COMPARED = 20_000
"""Maximum product of the lengths, in characters, of the answer and the right answer that upstream may compare, about 0.2 s; 900
times 900 take 15 s."""


def codeio(answer: str, entry: dict[str, Any]) -> str | None:
    """JSON with the right types too; upstream's comparison does not distinguish 1 from "1" or true, nor a list from an object.

    A wrong answer that is too long for upstream's tree comparison is refused; the others may get partial credit.
    """
    oracle = entry["answer"].strip()
    begin, end = answer.find("{"), answer.rfind("}")
    if begin < 0 or end < begin or answer == oracle:
        return None
    given, right = read_json(answer[begin : end + 1]), read_json(oracle)
    if given is NOT_JSON:
        return "not_json"
    leaves, right_leaves = _leaves(given), _leaves(right)
    if given == right and [leaf.kind for leaf in leaves] == [leaf.kind for leaf in right_leaves]:
        return None
    alike = len(leaves) == len(right_leaves) and all(map(_are_alike, leaves, right_leaves))
    return "wrong_value" if given == right or alike or len(answer) * len(oracle) > _MAX_COMPARED else None


class _Leaf(NamedTuple):
    """A node of a JSON value as upstream's comparison sees it, and its type, which that does not see."""

    kind: str
    text: str
    value: Any


def _leaves(value: Any) -> list[_Leaf]:
    """Return all nodes, parents first and keys in order."""
    todo, seen = [("root", value)], []
    while todo:
        label, node = todo.pop()
        children: list[tuple[str, Any]] = []
        if isinstance(node, dict):
            children = sorted(node.items(), key=itemgetter(0))
        elif isinstance(node, list):
            children = [(f"item_{index}", item) for index, item in enumerate(node)]
        kind = "number" if type(node) in (int, float) else type(node).__name__
        seen.append(_Leaf(kind, label if kind in ("dict", "list") else f"{label}:{node}", node))
        todo.extend(reversed(children))
    return seen


def _are_alike(given: _Leaf, right: _Leaf) -> bool:
    """Whether upstream sees no difference; it rounds small differences between numbers away."""
    if given.kind == right.kind == "number":
        return math.isclose(given.value, right.value, rel_tol=1e-9)
    return given.text == right.text


def cryptarithm(answer: str, entry: dict[str, Any]) -> str | None:
    """One digit for each letter; upstream uses the last of several."""
    pairs = [re.fullmatch(r"\s*([A-Z])\s*=\s*(\d)\s*", pair, re.ASCII) for pair in answer.split(",")]
    if not all(pairs):
        return "not_a_mapping"
    letters = [pair[1] for pair in pairs if pair]
    return None if len(set(letters)) == len(letters) else "duplicate_letter"


def figlet_font(answer: str, entry: dict[str, Any]) -> str | None:
    """The whole word; upstream gives full marks for ten right letters of a longer word."""
    return _whole_words(answer.replace(" ", ""), entry["answer"])


def spell_backward(answer: str, entry: dict[str, Any]) -> str | None:
    """The whole word; upstream's sum of 1/n exceeds 1 for some n if more letters follow."""
    return _whole_words(answer, entry["answer"])


def _whole_words(answer: str, right: str) -> str | None:
    """Refuse wrong words that upstream's letter by letter comparison would give full marks."""
    given, expected = answer.strip().lower(), right.strip().lower()
    letters = sum(a == b for a, b in zip(given, expected, strict=False))
    return "wrong_words" if given != expected and letters >= min(len(expected), 10) else None


def letter_jumble(answer: str, entry: dict[str, Any]) -> str | None:
    """No more words than the sentence has; upstream ignores the rest."""
    return "too_many_words" if len(answer.split()) > len(entry["answer"].split()) else None


def word_sorting(answer: str, entry: dict[str, Any]) -> str | None:
    """No more words than the list has; upstream ignores the rest."""
    return "too_many_words" if answer.count(",") >= len(entry["metadata"]["sorted_words"]) else None


def knights_knaves(answer: str, entry: dict[str, Any]) -> str | None:
    """`X is a role` for each name and nothing else; upstream reads `it is false that X is a knight` as `X is a knight`."""
    words = re.sub(r"[.,()]", " ", answer.lower()).split()
    said = [word for word in words if word not in ("is", "a", "an", "and")]
    metadata = entry["metadata"]
    names = {str(name).lower() for name in metadata["names"]}
    roles = {metadata["knight_knave_terms"][role].lower() for role in ("knight", "knave")}
    pairs = list(zip(said[::2], said[1::2], strict=False))
    in_form = len(said) == 2 * len(names) and all(name in names and role in roles for name, role in pairs)
    return None if in_form and {name for name, _ in pairs} == names else "not_an_assignment"


def quantum_lock(answer: str, entry: dict[str, Any]) -> str | None:
    """Buttons and separators; upstream extracts the letters A to C from any text."""
    return None if all(char in "ABCabc" or not char.isalnum() for char in answer) else "not_a_sequence"


def kakurasu(answer: str, entry: dict[str, Any]) -> str | None:
    """A grid of 0 and 1; upstream ignores all other characters."""
    return None if re.fullmatch(r"[01\s,|\[\]]+", answer) else "not_a_grid"


def survo(answer: str, entry: dict[str, Any]) -> str | None:
    """A grid of whole numbers; upstream ignores all other words."""
    return None if _INTEGERS_BETWEEN_SPACES.fullmatch(answer) else "not_a_grid"
