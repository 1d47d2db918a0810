"""Number puzzles: whether the solution is right, and where the task takes only one, whether it is the only one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from rl_lightning.environments.reasoning_gym.problem_checks.reading import (
    Item,
    Oracle,
    between,
    exact,
    groups,
    numbers,
    whole_numbers,
)

Cell = tuple[int, int]


def _solutions(
    values: dict[Cell, set[int]], groups: list[list[Cell]], less: list[tuple[Cell, Cell]]
) -> Iterator[dict[Cell, int]]:
    """All ways to choose one value a cell so that no group has one twice, and the first of each pair of `less` is smaller."""
    peers: dict[Cell, set[Cell]] = {cell: set() for cell in values}
    for group in groups:
        for cell in group:
            peers[cell] |= set(group) - {cell}
    below: dict[Cell, list[Cell]] = {cell: [b for a, b in less if a == cell] for cell in values}
    above: dict[Cell, list[Cell]] = {cell: [a for a, b in less if b == cell] for cell in values}

    def narrowed(state: dict[Cell, set[int]], changed: list[Cell]) -> bool:
        while changed:
            cell = changed.pop()
            for other in (*peers[cell], *below[cell], *above[cell]):
                kept = state[other]
                if other in peers[cell] and len(state[cell]) == 1:
                    kept = kept - state[cell]
                if other in below[cell]:
                    kept = {v for v in kept if v > min(state[cell])}
                if other in above[cell]:
                    kept = {v for v in kept if v < max(state[cell])}
                if not kept:
                    return False
                if kept != state[other]:
                    state[other] = kept
                    changed.append(other)
        for group in groups:
            if len(group) > len(set().union(*(state[cell] for cell in group))):
                return False
            for value in set().union(*(state[cell] for cell in group)):
                places = [cell for cell in group if value in state[cell]]
                if (
                    len(places) == 1
                    and len(state[places[0]]) > 1
                    and len(group) == len(set().union(*(state[c] for c in group)))
                ):
                    state[places[0]] = {value}
                    if not narrowed(state, places):
                        return False
        return True

    def search(state: dict[Cell, set[int]]) -> Iterator[dict[Cell, int]]:
        open_cells = [cell for cell in state if len(state[cell]) > 1]
        if not open_cells:
            yield {cell: next(iter(found)) for cell, found in state.items()}
            return
        cell = min(open_cells, key=lambda c: len(state[c]))
        for value in sorted(state[cell]):
            new = {**state, cell: {value}}
            if narrowed(new, [cell]):
                yield from search(new)

    first = dict(values)
    if narrowed(first, list(first)):
        yield from search(first)


def _only(found: Iterator[dict[Cell, int]], given: list[list[int]]) -> str | None:
    solutions = [solution for solution, _ in zip(found, range(2), strict=False)]
    mine = {(r, c): value for r, row in enumerate(given) for c, value in enumerate(row)}
    if mine in solutions and len(solutions) == 1:
        return None
    return f"{len(solutions)} or more solutions" if mine in solutions or len(solutions) > 1 else f"it is {solutions}"


def sudoku(item: Item) -> str | None:
    """sudoku and mini_sudoku."""
    puzzle = numbers(groups(r"((?:^[_\d](?: [_\d])+$\n?)+)", item["question"], re.MULTILINE)[0].replace("_", "0"))
    size = len(puzzle)
    box = round(size**0.5)
    values = {(r, c): {v} if v else set(range(1, size + 1)) for r, row in enumerate(puzzle) for c, v in enumerate(row)}
    parts = [[(r, c) for c in range(size)] for r in range(size)] + [[(r, c) for r in range(size)] for c in range(size)]
    parts += [
        [(r + a, c + b) for a in range(box) for b in range(box)]
        for r in range(0, size, box)
        for c in range(0, size, box)
    ]
    return _only(_solutions(values, parts, []), numbers(item["answer"]))


def futoshiki(item: Item) -> str | None:
    """The board is read from the question: cells stand at every fourth column of every second line."""
    body = item["question"].split("puzzle:\n\n")[1].split("\n\nEnsure")[0].split("\n")
    cells = [[line[c : c + 1] for c in range(0, len(line.rstrip()), 4)] for line in body[::2]]
    size = len(cells)
    values = {
        (r, c): {int(v)} if v.isdigit() else set(range(1, size + 1))
        for r, row in enumerate(cells)
        for c, v in enumerate(row)
    }
    less: list[tuple[Cell, Cell]] = []
    for r, line in enumerate(body[::2]):
        for c, sign in ((c, line[4 * c + 2 : 4 * c + 3]) for c in range(size - 1)):
            less += {"<": [((r, c), (r, c + 1))], ">": [((r, c + 1), (r, c))]}.get(sign, [])
    for r, line in enumerate(body[1::2]):
        for c, sign in ((c, line[4 * c : 4 * c + 1]) for c in range(size)):
            less += {"∧": [((r, c), (r + 1, c))], "∨": [((r + 1, c), (r, c))]}.get(sign, [])
    parts = [[(r, c) for c in range(size)] for r in range(size)] + [[(r, c) for r in range(size)] for c in range(size)]
    given = [[int(n) for n in re.findall(r"\d", line)] for line in item["answer"].split("\n")[::2]]
    return _only(_solutions(values, parts, less), given)


def kakurasu(item: Item) -> str | None:
    given = numbers(item["answer"])
    sums = [
        [int(n) for n in part.split(", ")]
        for part in re.findall(r"sums (?:are |\{?)?:? ?\[([\d, ]+)\]", item["question"].replace("sums:", "sums"))
    ]
    across = [sum(k for k, cell in enumerate(row, 1) if cell) for row in given]
    down = [sum(k for k, cell in enumerate(column, 1) if cell) for column in zip(*given, strict=True)]
    only_bits = {cell for row in given for cell in row} <= {0, 1}
    return None if sums == [across, down] and only_bits else f"the sums are {across} and {down}"


def cryptarithm(item: Item) -> str | None:
    lines = groups(r"cryptarithm:\n\n(.*?)\n\n", item["question"], re.DOTALL)[0].splitlines()
    *words, total = [re.sub(r"[^A-Z]", "", line) for line in lines if re.search("[A-Z]", line)]
    digit = dict(pair.split("=") for pair in item["answer"].split(","))
    values = [int("".join(digit[letter] for letter in word)) for word in (*words, total)]
    leading = any(digit[word[0]] == "0" for word in (*words, total))
    right = sum(values[:-1]) == values[-1] and len(set(digit.values())) == len(digit)
    return None if right and not leading else "it does not add up"


def n_queens(item: Item) -> str | None:
    given, board = (
        [line.split() for line in text.strip().splitlines()]
        for text in (between(item["question"], "attack each other.\n"), item["answer"])
    )
    queens = [(r, c) for r, row in enumerate(board) for c, cell in enumerate(row) if cell == "Q"]
    kept = all(board[r][c] == "Q" for r, row in enumerate(given) for c, cell in enumerate(row) if cell == "Q")
    lines = ({r for r, _ in queens}, {c for _, c in queens}, {r + c for r, c in queens}, {r - c for r, c in queens})
    kept = kept and {cell for row in board for cell in row} == {"_", "Q"}
    return None if kept and all(len(line) == len(board) for line in lines) else "queens attack each other"


def countdown(item: Item) -> str | None:
    """The question names the numbers in one row, and the target on its own."""
    task = item["question"].split("\n\nFinal answer")[0]
    row = re.search(r"\d+(?:, \d+)+", task)[0]  # type: ignore[index]
    target = whole_numbers(task.replace(row, ""))
    return _expression(item["answer"], target[0], whole_numbers(row))


def puzzle24(item: Item) -> str | None:
    return _expression(item["answer"], 24, whole_numbers(item["question"].split("using ")[1].split(". You")[0]))


def _expression(text: str, target: int, free: list[int]) -> str | None:
    used = Counter(int(n) for n in re.findall(r"\d+", text))
    value = exact(text)
    return None if value == Fraction(target) and used == Counter(free) else f"its value is {value} with {dict(used)}"


ORACLES: dict[str, Oracle] = {
    "countdown": countdown,
    "cryptarithm": cryptarithm,
    "futoshiki": futoshiki,
    "kakurasu": kakurasu,
    "mini_sudoku": sudoku,
    "n_queens": n_queens,
    "puzzle24": puzzle24,
    "sudoku": sudoku,
}
