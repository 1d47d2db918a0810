"""Checks of answers that are moves in a game: upstream skips moves that it cannot read or that the rules forbid."""

from __future__ import annotations

import re
from typing import Any

from rl_lightning.environments.reasoning_gym.answer_checks.grammar import is_list_of_strings, read_json

_SIDE = 6
_CAR_MOVE = re.compile(r"([A-Z])([+-])([1-5])", re.ASCII)
_CUBE_MOVE = re.compile(r"(?:[LRDUBF]w?|[XYZMES])'?([1-9]?)", re.ASCII)
_MAX_TURNS = 1000
"""Quarter turns of a cube: upstream's solver needs about 100, and a turn costs about 50 microseconds."""
_DISK_MOVE = re.compile(r"Move disk ([1-9]\d{0,3}) from Peg ([1-9]\d{0,3}) to Peg ([1-9]\d{0,3})", re.ASCII)
_BOX_MOVE = re.compile(r"move\(([^,()]*),\s([^()]*)\)")
_NUMBER = re.compile(r"\d{1,6}\.?\d{0,6}", re.ASCII)


def rush_hour(answer: str, entry: dict[str, Any]) -> str | None:
    """Legal moves; upstream skips the others, so a long enough list of all moves solves any puzzle.

    Upstream names the cars A, B, C, … in the order of their letters in `board_config`.
    """
    board = entry["metadata"]["board_config"]
    letters = sorted(set(board) - set("ox"))
    cars = {chr(ord("A") + index): _cells(board, letter) for index, letter in enumerate(letters)}
    walls = set(_cells(board, "x"))
    for word in answer.replace(",", " ").split():
        move = _CAR_MOVE.fullmatch(word)
        if move is None or move[1] not in cars:
            return "not_a_move"
        taken = walls.union(*(cells for name, cells in cars.items() if name != move[1]))
        for _ in range(int(move[3])):
            moved = _shifted(cars[move[1]], 1 if move[2] == "+" else -1)
            if moved is None or not taken.isdisjoint(moved):
                return "illegal_move"
            cars[move[1]] = moved
    return None


def _cells(board: str, letter: str) -> list[int]:
    return [cell for cell, label in enumerate(board) if label == letter]


def _shifted(cells: list[int], step: int) -> list[int] | None:
    """Return the cells after one step along the car's axis; None if that is off the board."""
    stride = cells[1] - cells[0]
    moved = [cell + step * stride for cell in cells]
    on_board = all(0 <= cell < _SIDE**2 for cell in moved)
    same_row = stride != 1 or len({cell // _SIDE for cell in moved + cells}) == 1
    return moved if on_board and same_row else None


def rubiks_cube(answer: str, entry: dict[str, Any]) -> str | None:
    """Turns that upstream reads as written; it silently drops `R2'` and `2R`, and repeats R999999999 that often."""
    moves = [_CUBE_MOVE.fullmatch(word) for word in answer.split()]
    if not all(moves):
        return "not_a_move"
    return "too_long" if sum(int(move[1] or 1) for move in moves if move) > _MAX_TURNS else None


def tower_of_hanoi(answer: str, entry: dict[str, Any]) -> str | None:
    """One move of a disk between pegs per line; upstream prints an error for pegs that do not exist."""
    disks, pegs = entry["metadata"]["num_disks"], entry["metadata"]["num_pegs"]
    for line in answer.splitlines():
        move = _DISK_MOVE.fullmatch(line.strip())
        if line.strip() and not (move and int(move[1]) <= disks and max(int(move[2]), int(move[3])) <= pegs):
            return "not_a_move"
    return None


def sokoban(answer: str, entry: dict[str, Any]) -> str | None:
    """Letters L, R, U and D; upstream extracts them from any text."""
    return None if re.fullmatch(r"[LRUD\s,]+", answer) else "not_a_move"


def jugs(answer: str, entry: dict[str, Any]) -> str | None:
    """A JSON list of strings; upstream also iterates over the keys of an object."""
    return None if is_list_of_strings(read_json(answer)) else "not_a_list_of_moves"


def boxnet(answer: str, entry: dict[str, Any]) -> str | None:
    """A JSON list of steps that move boxes; upstream lets an agent carry the target to the box, and raises on other JSON."""
    steps = read_json(answer)
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return "not_a_list_of_moves"
    for step in steps:
        for agent, action in step.items():
            if not isinstance(action, str) or len(_NUMBER.findall(agent)) != 2:
                return "not_a_move"
            move = _BOX_MOVE.fullmatch(action)
            if action.startswith("move(") and not (move and move[1].startswith("box_")):
                return "not_a_move"
    return None
