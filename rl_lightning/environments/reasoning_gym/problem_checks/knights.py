"""Knights that are to change places, on a board that the question shows in full and upstream does not."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, groups

Squares = frozenset[str]
State = tuple[Squares, Squares, bool]
"""Where the white and the black knights are, and whether it is white's turn."""


def knight_swap(item: Item) -> str | None:
    """Upstream makes a puzzle impossible by taking away a jump, of which the question does not know."""
    if item["answer"] != "No":
        return None
    squares = _squares(item["question"])
    jumps = {a: [b for b in squares if _is_jump(a, b)] for a in squares}
    white, black = (frozenset(s for s, piece in squares.items() if piece == color) for color in "wB")
    goal, start = (black, white), (white, black, "w moves first" in item["question"])
    reached, new = {start}, {start}
    while new:
        if any(state[:2] == goal for state in new):
            return "it is possible"
        new = {after for state in new for after in _moved(jumps, state)} - reached
        reached |= new
    return None


def _squares(question: str) -> dict[str, str]:
    """The squares of the board, each with its piece or a dot."""
    header, rows = groups(r"```\n +([A-Z][A-Z ]*)\n(.*?)```", question, re.DOTALL)
    lines = re.findall(r"^(\d) \|(.*)\|$", rows, re.MULTILINE)
    cells = {
        f"{c}{row}": cell.strip()
        for row, line in lines
        for c, cell in zip(header.split(), line.split("|"), strict=True)
    }
    return {square: cell for square, cell in cells.items() if cell}


def _is_jump(a: str, b: str) -> bool:
    return sorted((abs(ord(a[0]) - ord(b[0])), abs(int(a[1:]) - int(b[1:])))) == [1, 2]


def _moved(jumps: dict[str, list[str]], state: State) -> Iterator[State]:
    white, black, is_white = state
    for start in white if is_white else black:
        for end in jumps[start]:
            if end not in white and end not in black:
                moved = (white if is_white else black) - {start} | {end}
                yield (moved, black, False) if is_white else (white, moved, True)
