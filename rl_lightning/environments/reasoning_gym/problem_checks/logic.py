"""What follows from what, by looking at every possible world."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import product

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, differs, groups

World = Mapping[str, bool]
Formula = Callable[[World], bool]


def syllogism(item: Item) -> str | None:
    """By tradition no class is empty, and upstream has it so. Some of its answers are wrong by any reading: all A are B
    and some B are C do not make some A C."""
    statements = groups(r"1\. (.*)\n2\. (.*)\n\n.*follow that:\n(.*)\?", item["question"])
    classes = dict.fromkeys(name for statement in statements for name in _classes(statement))
    names = dict(zip(classes, "ABC", strict=True))
    short = (" are ".join(_quantified(statement, names)) for statement in statements)
    return differs(item, "Yes" if _follows(*short) else "No")


def _classes(statement: str) -> list[str]:
    return re.sub(r"^(?:All|No|Some) | not(?= )", "", statement).split(" are ")


def _quantified(statement: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The two sides of the statement, with short names."""
    first, second = (names[name] for name in _classes(statement))
    return f"{statement.split()[0]} {first}", f"not {second}" if " are not " in statement else second


@cache
def _follows(one: str, two: str, asked: str) -> bool:
    """A world says which of the eight kinds of things, in or out of three classes, exist."""
    kinds = [dict(zip("ABC", kind, strict=True)) for kind in product([False, True], repeat=3)]
    for exists in product([False, True], repeat=len(kinds)):
        things = [kind for kind, there in zip(kinds, exists, strict=True) if there]
        possible = all(any(thing[name] for thing in things) for name in "ABC")
        if possible and _holds(one, things) and _holds(two, things) and not _holds(asked, things):
            return False
    return True


def _holds(statement: str, things: list[dict[str, bool]]) -> bool:
    a, b = _classes(statement)
    both = any(thing[a] and thing[b] for thing in things)
    one = any(thing[a] and not thing[b] for thing in things)
    if statement.startswith("Some"):
        return one if " are not " in statement else both
    return not one if statement.startswith("All") else not both


def propositional_logic(item: Item) -> str | None:
    """From premises that contradict each other anything follows, and from ones that say nothing only what is always true."""
    premises = [parse(text) for text in re.findall(r"^\.?\d+\. (.*)$", item["question"], re.MULTILINE)]
    names = sorted(set(re.findall(r"[A-Z]", "".join(item["metadata"]["premises"]))))
    worlds = [dict(zip(names, values, strict=True)) for values in product([False, True], repeat=len(names))]
    true = [world for world in worlds if all(premise(world) for premise in premises)]
    if not true:
        return "the premises contradict each other"
    return "the premises say nothing" if len(true) == len(worlds) else None


_OPERATORS: dict[str, Callable[[bool, bool], bool]] = {
    "∧": lambda a, b: a and b,
    "∨": lambda a, b: a or b,
    "→": lambda a, b: not a or b,
    "↔": lambda a, b: a == b,
}


def parse(text: str) -> Formula:
    """A formula in upstream's notation, with parentheses around every pair."""
    tokens = re.findall(r"[A-Z]|[()¬∧∨→↔]", text)

    def take() -> Formula:
        token = tokens.pop(0)
        if token == "¬":
            inner = take()
            return lambda world: not inner(world)
        if token != "(":
            return lambda world: world[token]
        left, sign, right = take(), tokens.pop(0), take()
        tokens.pop(0)  # the closing parenthesis
        return lambda world: _OPERATORS[sign](left(world), right(world))

    return take()
