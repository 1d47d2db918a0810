"""Letters drawn in figlet fonts, grids made by a rule, sequences: is there another answer that fits what is shown?"""

from __future__ import annotations

from functools import cache

import numpy as np

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, differs


def modulo_grid(item: Item) -> str | None:
    """Of all rules that the task could have used, none that fits fills the holes in another way."""
    shown, answer = (
        np.array([[*line] for line in text.strip().splitlines()])
        for text in (item["question"].split("\n\n", 1)[1], item["answer"])
    )
    seen = shown != "❔"
    fits = 0
    for values in _values(*shown.shape):
        for target in range(20 + 1):
            marks = np.where(values == target, "✅", "❌")
            if (marks == shown)[seen].all():
                fits += 1
                if not (marks == answer).all():
                    return "another rule fits, with another completion"
    return None if fits else "no rule fits"


@cache
def _values(height: int, width: int) -> list[np.ndarray]:
    """Each operation's results by each divisor."""
    operations = (lambda x, y: x + y, lambda x, y: abs(x - y), lambda x, y: x * y, lambda x, y: x**y)
    results = [[[operation(x, y) for x in range(width)] for y in range(height)] for operation in operations]
    return [np.array([[value % d for value in row] for row in result]) for result in results for d in range(1, 21)]


def number_sequence(item: Item) -> str | None:
    """The rule in words, applied from the first number on."""
    shown = [int(text) for text in item["question"].removesuffix(", ?").split(", ")]
    sequence = shown[:1]
    for _ in shown:
        value = sequence[-1]
        for step in item["metadata"]["rule"].split(" then "):
            if step == "add previous":
                value += sequence[-2] if len(sequence) > 1 else 0
            elif step.startswith(("add", "multiply")):
                number = int(step.split()[-1])
                value = value + number if step.startswith("add") else value * number
            elif step:
                value = {"square": value * value, "double": 2 * value, "halve": value // 2}[step]
        sequence.append(value)
    return differs(item, sequence[-1]) if sequence[:-1] == shown else f"the rule gives {sequence}"


ORACLES: dict[str, Oracle] = {
    "modulo_grid": modulo_grid,
    "number_sequence": number_sequence,
}
