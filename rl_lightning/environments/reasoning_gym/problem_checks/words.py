"""Texts that do not say what upstream expects, or can be read in more than one way."""

from __future__ import annotations

import re
from functools import cache
from string import ascii_uppercase

import pyfiglet

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, groups


def caesar_cipher(item: Item) -> str | None:
    """Upstream encrypts letters such as Ë as if they were between A and Z."""
    return None if item["answer"].isascii() else "it has letters that the cipher loses"


def emoji_mystery(item: Item) -> str | None:
    """With an emoji of two characters the second one is decoded too."""
    return None if len(item["metadata"]["emoji"]) == 1 else "the emoji hides a character of its own"


def needle_haystack(item: Item) -> str | None:
    """Two people may do the same."""
    story, deed = groups(r"^(.*)\nWho (.*)\? Reply", item["question"], re.DOTALL)
    sentences = f" {story}".split(". ")
    return None if sum(sentence.endswith(f" {deed}") for sentence in sentences) == 1 else "more than one does it"


def figlet_font(item: Item) -> str | None:
    """In some fonts letters look alike."""
    glyphs = _glyphs(item["metadata"]["font"])
    alike = [a for a in item["answer"] for b in ascii_uppercase if a in glyphs and a != b and glyphs[a] == glyphs[b]]
    return f"{alike[0]} looks like another letter" if alike else None


def string_manipulation(item: Item) -> str | None:
    """Of `cb`, replaced by `aa`, upstream deletes no last character."""
    data = item["metadata"]
    meets = "cb" in data["states"][:-1] and any("delete the last character" in rule for rule in data["selected_rules"])
    return "a last character that is not deleted" if meets else None


@cache
def _glyphs(font: str) -> dict[str, str]:
    return {letter: pyfiglet.figlet_format(letter, font=font) for letter in ascii_uppercase}
