"""Stones, boxes, knights and a coloured cube, moved one step at a time."""

from __future__ import annotations

import json
import re

from rl_lightning.environments.reasoning_gym.problem_checks.knights import knight_swap as impossible_swap
from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, differs, groups

Point = tuple[int, int]


def _near(point: Point) -> list[Point]:
    return [(point[0] + dr, point[1] + dc) for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1))]


_PUSHES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}


def sokoban(item: Item) -> str | None:
    lines = item["question"].split("Here is your puzzle:\n")[1].strip().splitlines()
    cells = {(r, c): cell for r, line in enumerate(lines) for c, cell in enumerate(line.split())}
    at = next(p for p, cell in cells.items() if cell in "*%")
    boxes, goals = ({p for p, cell in cells.items() if cell in kind} for kind in ("@$", "X$%"))
    for move in item["answer"]:
        dr, dc = _PUSHES[move]
        to, beyond = (at[0] + dr, at[1] + dc), (at[0] + 2 * dr, at[1] + 2 * dc)
        if cells[to] == "+" or (to in boxes and (cells[beyond] == "+" or beyond in boxes)):
            continue
        if to in boxes:
            boxes = boxes - {to} | {beyond}
        at = to
    return None if boxes <= goals or goals <= boxes else "boxes are left"


def knight_swap(item: Item) -> str | None:
    """Moves are legal and alternate; an impossible puzzle is so by search of all positions."""
    text = item["question"].split("```")[1]
    columns = text.split("\n")[1].split()
    squares: dict[str, str] = {}
    for row, line in re.findall(r"^(\d) \|(.*)\|$", text, re.MULTILINE):
        squares |= {
            f"{column}{row}": cell.strip()
            for column, cell in zip(columns, line.split("|"), strict=True)
            if cell.strip()
        }
    first = groups(r"(\w) moves first", item["question"])[0]
    place = {name: (columns.index(name[0]), int(name[1:])) for name in squares}
    jumps = {
        a: [b for b in place if sorted((abs(place[a][0] - place[b][0]), abs(place[a][1] - place[b][1]))) == [1, 2]]
        for a in place
    }
    white, black = (frozenset(s for s in squares if squares[s] == colour) for colour in "wB")
    if item["answer"] == "No":
        return impossible_swap(item)
    now, turn = {"w": white, "B": black}, first
    for move in json.loads(item["answer"]):
        colour, a, to = move.split(",")
        if colour != turn or a not in now[colour] or to not in jumps[a] or to in now["w"] | now["B"]:
            return f"not legal: {move}"
        now[colour] = now[colour] - {a} | {to}
        turn = "B" if turn == "w" else "w"
    return None if now == {"w": black, "B": white} else "not swapped"


_AXES = {
    "top": (0, 0, 1),
    "bottom": (0, 0, -1),
    "front": (0, -1, 0),
    "back": (0, 1, 0),
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
}


def color_cube_rotation(item: Item) -> str | None:
    """Sides are directions in space; a turn brings one of them to the top about the axis at right angles to both."""
    question = item["question"]
    color = {_AXES[side]: name for name, side in re.findall(r"- an? (\w+) (\w+) side", question)}
    for line in question.splitlines():
        turned = re.search(r"(?:at the|the|its) (front|right|left|back|bottom)\b", line)
        if turned and "What is now" not in line and "top" in line:
            x, y, _ = _AXES[turned[1]]
            bottom = turned[1] == "bottom"
            color = {_turned(axis, (x, y), bottom): name for axis, name in color.items()}
    asked = groups(r"color of the (\w+) side", question)[0]
    return differs(item, color[_AXES[asked]])


def _turned(axis: tuple[int, int, int], up: Point, over: bool) -> tuple[int, int, int]:
    """Where a direction goes if `up` goes to the top; `over`: half a turn about the axis from left to right."""
    x, y, z = axis
    if over:
        return (x, -y, -z)
    along = x * up[0] + y * up[1]
    return (x - along * up[0] - z * up[0], y - along * up[1] - z * up[1], along)


ORACLES: dict[str, Oracle] = {
    "color_cube_rotation": color_cube_rotation,
    "knight_swap": knight_swap,
    "sokoban": sokoban,
}
