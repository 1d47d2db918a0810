"""A right answer to each task's problems, for the tests of what is let through and what is refused."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from itertools import count, islice, product
from typing import Any

import sympy

from rl_lightning.environments.environment import GenerationFailed
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask
from rl_lightning.types import Problem

Entry = dict[str, Any]
"""An item of reasoning-gym: question, answer and metadata."""

FEW = {"futoshiki": 8, "knight_swap": 3, "number_sequence": 8, "puzzle24": 8, "sokoban": 8, "zebra_puzzles": 8} | {
    "intermediate_integration": 25,
    "quantum_lock": 20,
}
"""Problems of the tasks that take long to make or to score; 50 of the others."""


@functools.cache
def task(name: str, **config: Any) -> ReasoningGymTask:
    return ReasoningGymTask(name, config)


def score(chosen: ReasoningGymTask, answer: str, entry: Entry) -> float:
    """What reasoning-gym's own scorer gives for an answer to one of its items."""
    return chosen.verify(Problem(entry["question"], payload=entry), answer)


@functools.cache
def problems(name: str) -> list[Problem]:
    """The task's problems of some seeds, without those whose answer is wrong."""
    return list(islice(asked(task(name), (77_000 + 13 * i for i in count())), FEW.get(name, 50)))


def asked(chosen: ReasoningGymTask, seeds: Iterable[int]) -> Iterator[Problem]:
    for seed in seeds:
        try:
            yield chosen.problem(seed)
        except GenerationFailed as error:
            if error.reason != "wrong_answer":
                raise


def solve_rush_hour(entry: Entry) -> str:
    """Breadth first, on cars as (first cell, size, stride); the first letter's car leaves at cell 16."""
    board = entry["metadata"]["board_config"]
    cells = [[i for i, c in enumerate(board) if c == letter] for letter in sorted(set(board) - set("ox"))]
    walls = {i for i, c in enumerate(board) if c == "x"}
    cars = [(len(c), c[1] - c[0]) for c in cells]
    start = tuple(c[0] for c in cells)
    came, queue = {start: ""}, [start]
    for state in queue:
        if state[0] == 16:
            return came[state].strip()
        spans = [{at + i * stride for i in range(n)} for at, (n, stride) in zip(state, cars, strict=True)]
        for k, step in product(range(len(cars)), (1, -1)):
            stride = cars[k][1]
            moved = {cell + step * stride for cell in spans[k]}
            inside = all(0 <= c < 36 for c in moved) and (stride == 6 or len({c // 6 for c in moved}) == 1)
            after = (*state[:k], state[k] + step * stride, *state[k + 1 :])
            if inside and not moved & walls.union(*spans[:k], *spans[k + 1 :]) and after not in came:
                came[after] = f"{came[state]} {chr(65 + k)}{'+' if step > 0 else '-'}1"
                queue.append(after)
    raise AssertionError("the car cannot leave")


def solve_boxnet(entry: Entry, thing: str = "box") -> str:
    """Carry each box to its target, row first; or each target to its box, as nobody may."""
    steps, where = [], {item: at for at, items in entry["metadata"]["initial_state"].items() for item in items}
    other = {"box": "target", "target": "box"}[thing]
    for item in [item for item in where if item.startswith(thing)]:
        (row, column), goal = (tuple(map(float, where[name].split("_"))) for name in (item, item.replace(thing, other)))
        while (row, column) != goal:
            step = (row + (goal[0] > row) - (goal[0] < row), column) if row != goal[0] else None
            to = step or (row, column + (goal[1] > column) - (goal[1] < column))
            steps.append({f"Agent[{row}, {column}]": f"move({item}, square[{to[0]}, {to[1]}])"})
            row, column = to
        colour = item.split("_")[1]
        steps.append({f"Agent[{row}, {column}]": f"move(box_{colour}, target_{colour})"})
    return json.dumps(steps)


def right_answer(entry: Entry, name: str) -> Any:
    """The oracle's answer, or one that is right where it has none or one that only sympy would give."""
    metadata = entry["metadata"]
    if name == "intermediate_integration" and "Integral" in entry["answer"]:
        x = sympy.Symbol(metadata["variable"])
        return f"{sympy.integrate(sympy.parse_expr(metadata['integrand'], {str(x): x}), x)} + C"
    if name == "graph_color":
        return json.dumps(metadata["possible_answer"])
    solvers = {"rush_hour": solve_rush_hour, "boxnet": solve_boxnet}
    examples = {"rubiks_cube": "example_correct_answer", "propositional_logic": "example_answer"}
    if name in solvers:
        return solvers[name](entry)
    return metadata[examples[name]] if name in examples else entry["answer"].strip()


def made(answer: str, **metadata: Any) -> Entry:
    return {"question": "maximum of 12 significant digits", "answer": answer, "metadata": metadata}
