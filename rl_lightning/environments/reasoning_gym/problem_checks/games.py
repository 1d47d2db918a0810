"""Cards, stones, locks and sums of which upstream has a wrong answer, or one of several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from rl_lightning.environments.reasoning_gym.problem_checks.reading import (
    Item,
    differs,
    groups,
    numbers,
    whole_numbers,
)

Point = tuple[int, int]


def mahjong_puzzle(item: Item) -> str | None:
    """Upstream says "Pass" of a random card without a look at the hand, and "Chi" where "Peng" takes precedence."""
    hand = list(groups(r"initial cards (\w+)", item["question"])[0])
    result = ""
    for added, removed in re.findall(r"Add an? (\w) card and remove an? (\w) card", item["question"]):
        runs = [(-2, -1), (-1, 1), (1, 2)]
        makes_run = any(all(chr(ord(added) + step) in hand for step in run) for run in runs)
        result = "Peng" if hand.count(added) >= 2 else "Chi" if makes_run else "Pass"
        hand.append(added)
        hand.remove(removed)
    return differs(item, result)


def tsumego(item: Item) -> str | None:
    """Upstream's move does not capture if a stone that was added later gives the group another liberty; and others may capture."""
    (text,) = groups(r"```\n(.*)\n```", item["question"], re.DOTALL)
    columns, *lines = (line.split() for line in text.splitlines())
    board = {(int(line[0]), c): stone for line in lines for c, stone in enumerate(line[1:])}
    captures = {f"{columns[c]}{row}": taken for row, c in board if (taken := _captured(board, (row, c)))}
    if item["answer"] not in captures:
        return "the move captures nothing"
    if "as many" in item["question"]:
        captures = {move: taken for move, taken in captures.items() if taken == max(captures.values())}
    return None if list(captures) == [item["answer"]] else f"as right: {', '.join(sorted(captures))}"


def _captured(board: dict[Point, str], move: Point) -> int:
    """White stones that a black move captures."""
    if board[move] != ".":
        return 0
    taken: set[Point] = set()
    for start in _neighbours(board, move):
        group, new = {start}, [start] if board[start] == "O" else []
        while new:
            more = {p for p in _neighbours(board, new.pop()) if board[p] == "O"} - group
            group |= more
            new += more
        liberties = {p for stone in group for p in _neighbours(board, stone) if board[p] == "."}
        if board[start] == "O" and liberties == {move}:
            taken |= group
    return len(taken)


def _neighbours(board: dict[Point, str], point: Point) -> list[Point]:
    return [near for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1)) if (near := (point[0] + dr, point[1] + dc)) in board]


Button = tuple[str, int, str]


def quantum_lock(item: Item) -> str | None:
    """The question says that every press toggles the light; upstream presses only the buttons that the light allows, so it may miss
    a shorter way."""
    (start,), (target,) = groups(r"Start: (-?\d+)", item["question"]), groups(r"Target: (-?\d+)", item["question"])
    found = re.findall(r"^[A-C]: (\w+) (\d+) \(when (\w+)\)", item["question"], re.MULTILINE)
    buttons = [(kind, int(value), light) for kind, value, light in found]
    presses = item["answer"].count("→") + 1
    least = [_presses(buttons, int(start), int(target), presses, toggle) for toggle in (False, True)]
    return None if least == [presses, presses] else f"{min(least)} presses are enough"


def _presses(buttons: list[Button], start: int, target: int, most: int, toggle: bool) -> int:
    """The least presses, and most + 1 if they are more.

    Args:
        toggle: whether a press toggles the light where the button does nothing.
    """
    reached = new = {(start, False)}
    for presses in range(1, most + 1):
        new = {state for old in new for state in _pressed(buttons, old, toggle)} - reached
        reached = reached | new
        if any(number == target for number, _ in new):
            return presses
    return most + 1


def _pressed(buttons: list[Button], state: tuple[int, bool], toggle: bool) -> Iterator[tuple[int, bool]]:
    number, green = state
    for kind, value, light in buttons:
        if light in ("any", "green" if green else "red"):
            yield {"Add": number + value, "Subtract": number - value, "Multiply": number * value}[kind], not green
        elif toggle:
            yield number, not green


_MAX_STEPS = 100_000
"""Cells that the search for a second solution fills at most; a puzzle with more is kept."""


def survo(item: Item) -> str | None:
    """Upstream accepts only the solution that it began with."""
    (text,) = groups(r"((?:^\d+(?: \d+)+$\n?)+)", item["question"], re.MULTILINE)
    free = Counter(whole_numbers(re.findall(r"\[([\d, ]+)\]", item["question"])[-1]))
    puzzle, answer = numbers(text), numbers(item["answer"])
    holes = [(r, c) for r, row in enumerate(puzzle[:-1]) for c, v in enumerate(row[:-1]) if not v]
    solutions = [filled for filled, _ in zip(_fillings(puzzle, holes, free, [0]), range(2), strict=False)]
    return None if solutions in ([answer], []) else f"as right: {next(s for s in solutions if s != answer)}"


def _fillings(
    puzzle: list[list[int]], holes: list[Point], free: Counter[int], steps: list[int]
) -> Iterator[list[list[int]]]:
    """The puzzle with its holes filled so that all rows and columns have their sums."""
    if not holes:
        yield [row[:] for row in puzzle]
        return
    (r, c), *left = holes
    for value in sorted(free):
        steps[0] += 1
        if steps[0] > _MAX_STEPS or not free[value]:
            continue
        puzzle[r][c] = value
        row, column = puzzle[r], [line[c] for line in puzzle]
        if all(sum(line[:-1]) <= line[-1] if 0 in line else sum(line[:-1]) == line[-1] for line in (row, column)):
            yield from _fillings(puzzle, left, free - Counter([value]), steps)
        puzzle[r][c] = 0
