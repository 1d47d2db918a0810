"""Matrices and boards: turned, pooled, read in a spiral, flooded, and lived on."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rl_lightning.environments.reasoning_gym.problem_checks.reading import (
    Item,
    Oracle,
    between,
    differs,
    groups,
    numbers,
    rows,
    whole_numbers,
)

Board = NDArray[np.int64]


def manipulate_matrix(item: Item) -> str | None:
    matrix = np.array(numbers(between(item["question"], "following matrix:", "Perform")))
    for step in re.findall(r"^- (.*)$", item["question"], re.MULTILINE):
        matrix = _manipulated(matrix, step, whole_numbers(step.replace("-", " ")))
    return differs(item, rows(matrix.tolist()))


def _manipulated(matrix: Board, step: str, values: list[int]) -> Board:
    if step.startswith("Rotate"):
        return np.rot90(matrix, -values[0] // 90)
    if step.startswith(("Horizontally", "Vertically")):
        return matrix[::-1] if step.startswith("H") else matrix[:, ::-1]
    if "counterdiagonal" in step:
        return np.rot90(matrix, 2).T
    if "diagonal" in step:
        return matrix.T
    if step.startswith("Map"):
        return np.where(matrix == values[0], values[1], matrix)
    if "divisible" in step:
        return np.where(matrix % values[0] == 0, 0, matrix)
    if step.startswith("Crop"):
        return matrix[values[0] - 1 : values[1], values[2] - 1 : values[3]]
    if step.startswith("Remove"):
        axis = int("column" in step)
        return np.delete(matrix, np.arange(values[0] - 1, matrix.shape[axis], values[0]), axis)
    assert step.startswith("Identity"), step
    return matrix


def rotate_matrix(item: Item) -> str | None:
    degrees = int(groups(r"by (\d+) degrees", item["question"])[0])
    matrix = np.array(numbers(between(item["question"], "degrees clockwise:")))
    return differs(item, rows(np.rot90(matrix, -degrees // 90).tolist()))


def spiral_matrix(item: Item) -> str | None:
    left = np.array(numbers(between(item["question"], "in spiral order?")))
    found: list[int] = []
    while left.size:
        found += left[0].tolist()
        left = np.rot90(left[1:])
    return differs(item, " ".join(map(str, found)))


def pool_matrix(item: Item) -> str | None:
    kind, size, text = groups(r"Perform (\w+) pooling .* size of (\d+):(.*)", item["question"], re.DOTALL)
    matrix, step = numbers(text), int(size)
    given = [[Fraction(word) for word in line.split()] for line in item["answer"].splitlines()]
    right: list[list[Fraction]] = []
    for top in range(0, len(matrix), step):
        right.append([])
        for left in range(0, len(matrix[0]), step):
            cells = [value for row in matrix[top : top + step] for value in row[left : left + step]]
            right[-1].append(Fraction(sum(cells), len(cells)) if kind == "average" else Fraction(max(cells)))
    near = [
        len(g) == len(r) and all(abs(a - b) <= Fraction(1, 200) for a, b in zip(g, r, strict=True))
        for g, r in zip(given, right, strict=False)
    ]
    return None if len(given) == len(right) and all(near) else f"it is {[[float(v) for v in row] for row in right]}"


def binary_matrix(item: Item) -> str | None:
    """The least distance to any zero, by comparing with all of them."""
    matrix = np.array(numbers(between(item["question"], "matrix below:")))
    zeros = np.argwhere(matrix == 0)
    if not len(zeros):
        return differs(item, rows(np.full(matrix.shape, -1).tolist()))
    cells = np.argwhere(matrix >= 0)
    nearest = np.abs(cells[:, None] - zeros[None]).sum(-1).min(-1).reshape(matrix.shape)
    return differs(item, rows(nearest.tolist()))


def largest_island(item: Item) -> str | None:
    matrix = np.array(numbers(between(item["question"], "binary matrix grid:", "An island")))
    label = np.where(matrix == 1, np.arange(1, matrix.size + 1).reshape(matrix.shape), 0)
    while not np.array_equal(label, new := np.where(label > 0, _neighbours(label).max(0), 0)):
        label = new
    return differs(item, np.bincount(label[label > 0]).max(initial=0))


def rotten_oranges(item: Item) -> str | None:
    matrix, minutes = np.array(numbers(item["question"].rsplit(":\n", 1)[1])), 0
    while True:
        new = np.where((matrix == 1) & (_neighbours(matrix) == 2).any(0), 2, matrix)
        if np.array_equal(new, matrix):
            return differs(item, -1 if (matrix == 1).any() else minutes)
        matrix, minutes = new, minutes + 1


def game_of_life(item: Item) -> str | None:
    steps = int(groups(r"after (\d+) steps", item["question"])[0])
    board = np.array(json.loads(between(item["question"], ")\n").rstrip(".")))
    for _ in range(steps):
        board = _generation(board)
    return None if json.loads(item["answer"]) == board.tolist() else f"it is {board.tolist()}"


def game_of_life_halting(item: Item) -> str | None:
    steps = int(groups(r"before (\d+) steps", item["question"])[0])
    text = between(item["question"], "Initial board:")
    if "..." in text:
        return "the board is abridged"
    board = np.array(numbers(re.sub(r"[\[\]]", " ", text)))
    for _ in range(steps):
        board = _generation(board)
    return differs(item, not board.any())


def _generation(board: Board) -> Board:
    """Of the Game of Life on a torus."""
    steps = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)]
    alive = np.sum([np.roll(board, step, (0, 1)) for step in steps], 0)
    return ((alive == 3) | ((alive == 2) & (board == 1))).astype(int)


def _neighbours(matrix: Board) -> Board:
    """(5, rows, columns): the matrix, and its neighbours in four directions, 0 outside."""
    padded = np.pad(matrix, 1)
    return np.stack([matrix, padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])


ORACLES: dict[str, Oracle] = {
    "binary_matrix": binary_matrix,
    "game_of_life": game_of_life,
    "game_of_life_halting": game_of_life_halting,
    "largest_island": largest_island,
    "manipulate_matrix": manipulate_matrix,
    "pool_matrix": pool_matrix,
    "rotate_matrix": rotate_matrix,
    "rotten_oranges": rotten_oranges,
    "spiral_matrix": spiral_matrix,
}
