"""Shortest paths and orders: in mazes, graphs, a lock's states, jugs and a row of pegs."""

from __future__ import annotations

import ast
import json
import re
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from rl_lightning.environments.reasoning_gym.problem_checks.reading import (
    Grid,
    Item,
    Oracle,
    between,
    differs,
    grid,
    groups,
    whole_numbers,
)

State = TypeVar("State", bound=Hashable)


def distance(start: State, goal: Callable[[State], bool], steps: Callable[[State], Iterable[State]]) -> int:
    """Steps on the shortest path; -1 where there is none."""
    reached, queue = {start}, deque([(start, 0)])
    while queue:
        state, far = queue.popleft()
        if goal(state):
            return far
        for new in steps(state):
            if new not in reached:
                reached.add(new)
                queue.append((new, far + 1))
    return -1


_MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def _in_grid(cells: Grid, wall: str, start: str, goal: str) -> int:
    def steps(cell: tuple[int, int]) -> list[tuple[int, int]]:
        row, column = cell
        near = [(row + dr, column + dc) for dr, dc in _MOVES.values()]
        return [(r, c) for r, c in near if 0 <= r < len(cells) and 0 <= c < len(cells[r]) and cells[r][c] != wall]

    place = {cell: (r, c) for r, line in enumerate(cells) for c, cell in enumerate(line) if cell in (start, goal)}
    return distance(place[start], lambda cell: cell == place[goal], steps)


def maze(item: Item) -> str | None:
    question = item["question"]
    start, goal, wall = groups(r"from '(.)' \(start\) to '(.)' \(goal\).*Legend: '(.)' = Wall", question, re.DOTALL)
    lines = groups(r"```\n(.*)\n```\nLegend", question, re.DOTALL)[0].splitlines()
    return differs(item, _in_grid([list(line) for line in lines], wall, start, goal))


def shortest_path(item: Item) -> str | None:
    cells = grid(between(item["question"], "in the following grid:"))
    shortest = _in_grid(cells, "X", "*", "#")
    if shortest < 0:
        return differs(item, "infeasible")
    row, column = next((r, c) for r, line in enumerate(cells) for c, cell in enumerate(line) if cell == "*")
    words = item["answer"].split()
    for word in words:
        row, column = row + _MOVES[word][0], column + _MOVES[word][1]
        if min(row, column) < 0 or row >= len(cells) or column >= len(cells[0]) or cells[row][column] == "X":
            return "it goes through a wall"
    return None if cells[row][column] == "#" and len(words) == shortest else f"it takes {shortest} steps"


def course_schedule(item: Item) -> str | None:
    """Courses are taken as long as one has nothing before it."""
    count = int(groups(r"total of (\d+) courses", item["question"])[0])
    before = ast.literal_eval(groups(r"take course a_i:\n(\[.*\])", item["question"])[0])
    left = set(range(count))
    while free := {course for course in left if not any(a == course and b in left for a, b in before)}:
        left -= free
    return differs(item, not left)


def graph_color(item: Item) -> str | None:
    edges = ast.literal_eval(groups(r"Edges: (\[.*\])", item["question"])[0])
    colors = ast.literal_eval(groups(r"colors: (\[.*\])", item["question"])[0])
    example = item["metadata"]["possible_answer"]
    right = all(example[a] != example[b] for a, b in edges) and set(example.values()) <= set(colors)
    return None if right else "not a colouring"


def path_star(item: Item) -> str | None:
    """Edges lead away from the centre, so one path leads to the goal."""
    graph, ends = between(item["question"], "following task:").strip("|= ").split("/")
    edges = [edge.split() for edge in graph.split("|")]
    start, goal = ends.replace("=", "").split()
    path = [goal]
    while path[0] != start:
        sources = [a for a, b in edges if b == path[0]]
        if len(sources) != 1:
            return "not one path"
        path.insert(0, sources[0])
    return differs(item, " ".join(path))


def jugs(item: Item) -> str | None:
    listed, target = groups(r"litres of water: (.*)\nAnd your target is: (\d+)", item["question"])
    size = {name: int(litres) for name, litres in re.findall(r"(\w):(\d+)", listed)}
    held = dict.fromkeys(size, 0)
    for move in json.loads(item["answer"]):
        verb, names = move.split(" ", 1)
        if verb == "pour":
            a, b = names.split("->")
            moved = min(held[a], size[b] - held[b])
            held[a], held[b] = held[a] - moved, held[b] + moved
        else:
            held[names] = size[names] if verb == "fill" else 0
    return None if int(target) in held.values() else "no jug holds the target"


def tower_of_hanoi(item: Item) -> str | None:
    """Legal, and no longer than the known shortest solutions for up to four pegs."""
    disks, pegs, start, goal = whole_numbers(item["question"].split("following the rules")[0])
    towers: dict[int, list[int]] = {peg: [] for peg in range(1, pegs + 1)}
    towers[start] = list(range(disks, 0, -1))
    moves = item["answer"].strip().splitlines()
    for move in moves:
        disk, source, target = whole_numbers(move)
        if not towers[source] or towers[source][-1] != disk or (towers[target] and towers[target][-1] < disk):
            return f"not legal: {move}"
        towers[target].append(towers[source].pop())
    if len(towers[goal]) < disks:
        return "not all disks are there"
    shortest = _hanoi(disks, pegs)
    return None if len(moves) == shortest else f"{shortest} moves are enough"


def _hanoi(disks: int, pegs: int) -> int:
    """Frame and Stewart's number of moves."""
    if disks <= 1 or pegs == 3:
        return 2**disks - 1
    return min(2 * _hanoi(top, pegs) + _hanoi(disks - top, pegs - 1) for top in range(1, disks))


ORACLES: dict[str, Oracle] = {
    "course_schedule": course_schedule,
    "graph_color": graph_color,
    "jugs": jugs,
    "maze": maze,
    "path_star": path_star,
    "shortest_path": shortest_path,
    "tower_of_hanoi": tower_of_hanoi,
}
