"""Families and circles of people, read from the story."""

from __future__ import annotations

import re

from reasoning_gym.graphs.family_relationships import FamilyRelationshipsConfig

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, differs, groups


def aiw(item: Item) -> str | None:
    """Upstream asks for the sisters of somebody whom the story does not mention, and forgets the second circle of colleagues."""
    question = item["question"]
    her = question.split(" has ")[0]
    women = [int(count) for count in re.findall(r"(\d+) (?:sisters|female friends|female colleagues)", question)]
    if "brother have?" in question:
        (asked,) = groups(r"does (\w+)'s brother", question)
        return differs(item, women[0] + 1) if asked == her else f"nothing is said of {asked}"
    if "male friends" in question:
        return differs(item, women[0] + 1)
    # Matilda is one of the women of both circles: she knows the other women of both, and the woman around whom the first one is.
    return differs(item, (women[0] - 1) + 1 + (women[1] - 1))


def family_relationships(item: Item) -> str | None:
    """Upstream names the parent-in-law for the child-in-law, and has the uncle's sex decide between niece and nephew."""
    spouse, parents = _family(item["question"].split("\n\n")[0])
    one, two = groups(r"(?:is|relation is) (\w+) (?:related )?to (\w+)\?", item["question"])
    words = [pair[one in _MEN] for pair in _relations(one, two, spouse, parents)]
    return None if item["answer"] in words else f"it is {' or '.join(words)}"


def _family(story: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Everybody's spouse, and everybody's parents."""
    spouse: dict[str, str] = {}
    parents: dict[str, set[str]] = {}
    couple = ["", ""]
    for sentence in story.rstrip(".").split(". "):
        if " is married to " in sentence:
            couple = sentence.split(" is married to ")
            spouse |= dict(zip(couple, reversed(couple), strict=True))
        else:
            for child in re.split(r", | and ", re.sub(r"They have (?:a child|children) called ", "", sentence)):
                parents[child] = set(couple)
    return spouse, parents


_MEN = frozenset(FamilyRelationshipsConfig().male_names)
_WORDS = [
    *(("mother", "father"), ("daughter", "son"), ("wife", "husband"), ("sister", "brother")),
    *(("grandmother", "grandfather"), ("granddaughter", "grandson"), ("aunt", "uncle"), ("niece", "nephew")),
    *(("mother-in-law", "father-in-law"), ("daughter-in-law", "son-in-law"), ("sister-in-law", "brother-in-law")),
]


def _relations(one: str, two: str, spouse: dict[str, str], parents: dict[str, set[str]]) -> list[tuple[str, str]]:
    """What the first is to the second, as a woman and as a man."""

    def up(name: str | None) -> set[str]:
        return parents.get(name or "", set())

    def siblings(a: str | None, b: str | None) -> bool:
        return a != b and bool(up(a)) and up(a) == up(b)

    def grand(name: str) -> set[str]:
        return {g for parent in up(name) for g in up(parent)}

    def aunt(a: str, b: str) -> bool:
        return any(siblings(a, parent) or siblings(spouse.get(a), parent) for parent in up(b))

    own, other = spouse.get(one), spouse.get(two)
    holds = [
        *(one in up(two), two in up(one), own == two, siblings(one, two), one in grand(two), two in grand(one)),
        *(aunt(one, two), aunt(two, one), one in up(other), two in up(own), siblings(own, two) or siblings(one, other)),
    ]
    return [word for word, true in zip(_WORDS, holds, strict=True) if true]
