"""Zebra puzzles: who lives in which house, by all orders that the clues leave."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from itertools import permutations
from typing import Any

from reasoning_gym.logic.contrib.logic_puzzle import literals

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, differs

Thing = tuple[int, str]
"""The place of its kind in the question's list, and its name there."""

World = dict[Thing, int]
Clue = tuple[int, Callable[[World], bool]]
"""The last kind of thing that a clue speaks of, and whether it holds."""


def zebra_puzzles(item: Item) -> str | None:
    """The houses in every order, one kind of thing after the other."""
    head, clues = item["question"].split("\n\n", 1)
    lines = [line[3:].rsplit(": ", 1) for line in head.splitlines() if line.startswith(" - ")]
    words = {text: (place, name) for place, (title, _) in enumerate(lines) for text, name in _texts(title).items()}
    tests = [_clue(text, words) for text in re.findall(r"^\d+\. (.*)\.$", clues, re.MULTILINE)]
    worlds: list[World] = [{}]
    for place, (_, listed) in enumerate(lines):
        things = [(place, name) for name in listed.split(", ")]
        orders = [dict(zip(things, order, strict=True)) for order in permutations(range(1, len(things) + 1))]
        own = [test for last, test in tests if last == place]
        both = ({**world, **order} for world in worlds for order in orders)
        worlds = [world for world in both if all(test(world) for test in own)]
    names = {name for world in worlds for (place, name), house in world.items() if place == 0 and house == 1}
    return differs(item, " or ".join(sorted(names)))


@cache
def _texts(title: str) -> dict[str, str]:
    """How clues speak of the things of a kind."""
    kinds: list[Any] = [
        kind for kind in literals.Literal.__subclasses__() if kind.description().startswith(f"{title}:")
    ]
    (kind,) = kinds
    return {each.value.casefold().strip(): each.name.replace("_", " ") for each in kind}


_NUMBERS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"]
_RELATIONS: list[tuple[str, str, Callable[[int, int], bool]]] = [
    ("There is one house between ", " and ", lambda a, b: abs(a - b) == 2),
    ("There are two houses between ", " and ", lambda a, b: abs(a - b) == 3),
    ("", " is directly left of ", lambda a, b: a == b - 1),
    ("", " is somewhere to the left of ", lambda a, b: a < b),
    ("", " is somewhere to the right of ", lambda a, b: a > b),
    ("", " is ", lambda a, b: a == b),
]


def _clue(text: str, words: dict[str, Thing]) -> Clue:
    """Read a clue.

    Raises:
        ValueError: it has another form.
    """
    text = text.casefold()
    if found := re.fullmatch(r"(.+?) is (not )?in the (\w+) house", text):
        thing, house = words[found[1].strip()], _NUMBERS.index(found[3]) + 1
        return thing[0], lambda world: (world[thing] == house) != bool(found[2])
    if text.endswith(" are next to each other"):
        return _between(text.removesuffix(" are next to each other"), " and ", words, lambda a, b: abs(a - b) == 1)
    for start, middle, test in _RELATIONS:
        if text.startswith(start.casefold()) and middle in text[len(start) :]:
            return _between(text[len(start) :], middle, words, test)
    raise ValueError(f"the clue is not understood: {text}")


def _between(text: str, middle: str, words: dict[str, Thing], test: Callable[[int, int], bool]) -> Clue:
    """Two things with words between them, which may also be part of a thing's name."""
    for cut in re.finditer(re.escape(middle), text):
        a, b = words.get(text[: cut.start()].strip()), words.get(text[cut.end() :].strip())
        if a and b:
            return max(a[0], b[0]), partial(_holds, a, b, test)
    raise ValueError(f"the clue is not understood: {text}")


def _holds(a: Thing, b: Thing, test: Callable[[int, int], bool], world: World) -> bool:
    return test(world[a], world[b])


ORACLES: dict[str, Oracle] = {"zebra_puzzles": zebra_puzzles}
