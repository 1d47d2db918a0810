"""Families, friends, liars and animals, read from the story."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, differs, groups

_LEGS = {
    0: "snake sea slug jellyfish flatworm leech snail worm eel",
    2: "chicken bird ostrich duck human",
    4: "dog cat cow horse lion elephant giraffe tiger deer sheep",
    5: "starfish",
    6: "insect ant butterfly beetle bee wasp grasshopper cricket cockroach praying_mantis firefly",
    8: "spider scorpion",
    10: "crab lobster shrimp",
    14: "woodlouse",
}


def leg_counting(item: Item) -> str | None:
    """Snakes, snails and worms have none, sea slugs neither."""
    legs = {name.replace("_", " "): count for count, names in _LEGS.items() for name in names.split()}
    legs |= {"sea slug": 0}
    listed = groups(r"if you have (.*)\?", item["question"])[0]
    total = 0
    for count, name in re.findall(r"(\d+) ([a-z ]+)", listed):
        animal = name if name in legs else name.removesuffix("s")
        if animal not in legs:
            return f"unknown animal: {animal}"
        total += int(count) * legs[animal]
    return differs(item, total)


World = dict[str, bool]


def knights_knaves(item: Item) -> str | None:
    """Statements are read from the story; a world fits if each inhabitant's statement is true just where that one is truthful."""
    question = item["question"]
    truthful, liar = groups(r"only by (\w+)s and (\w+)s\.", question)
    names = re.split(r", and |, ", groups(r"inhabitants: (.*?)\.", question)[0])
    story = question.split("inhabitants: ")[1].split(". ", 1)[1].rsplit(" So who is", 1)[0]
    statements = re.findall(rf'((?:if |\(|it is not )?[^".,:]*? is (?:an?) (?:{truthful}|{liar})[^".,]*)', story)
    contents = [_content(text, names) for text in statements]
    speakers = _speakers(story, statements, names)
    if sorted(speakers) != sorted(names):
        return f"not understood: {statements}"
    said = dict(zip(speakers, (_statement(text, truthful) for text in contents), strict=True))
    worlds = [dict(zip(names, values, strict=True)) for values in product([True, False], repeat=len(names))]
    fitting = [world for world in worlds if all(said[name](world) == world[name] for name in names)]
    given = {
        name: {truthful: True, liar: False}[role] for name, role in re.findall(r"(\w+) is an? (\w+)", item["answer"])
    }
    return None if fitting == [given] else f"it is {fitting}"


def _content(text: str, names: list[str]) -> str:
    """The statement without the words that introduce it."""
    text = re.sub(r"^.*?\b(?:said that|told you that|expressed that) ", "", text.strip())
    return text.strip()


def _speakers(story: str, statements: list[str], names: list[str]) -> list[str]:
    """Who says each statement: the only name in its sentence outside it."""
    speakers, rest = [], story
    for number, text in enumerate(statements):
        end = rest.index(text) + len(text)
        following = statements[number + 1] if number + 1 < len(statements) else None
        before, after = rest[: rest.index(text)] + _introduction(text), rest[end:]
        after = after[: after.index(following)] if following else after
        found = [name for name in names if re.search(rf"\b{name}\b", before)]
        if not found:
            found = [re.search(r"\w+", after.lstrip('," -.'))[0]]  # type: ignore[index]
            rest = rest[end + after.index(found[0]) + len(found[0]) :]
        else:
            rest = rest[end:]
        speakers.append(found[-1])
    return speakers


def _introduction(text: str) -> str:
    found = re.match(r"^.*?\b(?:said that|told you that|expressed that) ", text.strip())
    return found[0] if found else ""


def _statement(text: str, truthful: str) -> Callable[[World], bool]:
    text = text.strip()
    if text.startswith("it is not the case that "):
        inner = _statement(text.removeprefix("it is not the case that "), truthful)
        return lambda world: not inner(world)
    if text.startswith("if "):
        left, right = (_statement(part, truthful) for part in _top_level(text[3:], " then "))
        return lambda world: not left(world) or right(world)
    for word, join in ((" if and only if ", lambda v: v[0] == v[1]), (" and ", all), (" or ", any)):
        parts = _top_level(text, word)
        if len(parts) > 1:
            each = [_statement(part, truthful) for part in parts]
            return lambda world, each=each, join=join: join([s(world) for s in each])  # type: ignore[misc]
    if text.startswith("("):
        return _statement(text[1:-1], truthful)
    name, role = re.fullmatch(r"(\w+) is an? (\w+)", text).groups()  # type: ignore[union-attr]
    return lambda world: world[name] == (role == truthful)


def _top_level(text: str, word: str = "\0") -> list[str]:
    """The parts of the text between the words that stand in no parentheses."""
    parts, depth, start = [], 0, 0
    for k, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth and text.startswith(word, k):
            parts.append(text[start:k])
            start = k + len(word)
    return [*parts, text[start:]]


ORACLES: dict[str, Oracle] = {
    "knights_knaves": knights_knaves,
    "leg_counting": leg_counting,
}
