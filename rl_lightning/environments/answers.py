"""Extract the answer from a completion, in time linear in its length."""

from __future__ import annotations

import re

_TAG = re.compile(r"</?answer>")
_WELL_FORMED = re.compile(r"\s*<think>(?P<think>.*)</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL)
_ALL_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def extract_answer(text: str) -> str | None:
    """The content of the last well-formed `<answer>…</answer>` pair, stripped, or None where there is none.

    A pair is well-formed if no other answer tag is inside it. It takes one pass over the tags: reasoning-gym's own extraction is
    quadratic in the number of opening tags.
    """
    answer, opened = None, None
    for tag in _TAG.finditer(text):
        if tag.group() == "<answer>":
            opened = tag.end()
        elif opened is not None:
            answer, opened = text[opened : tag.start()].strip(), None
    return answer


def is_well_formed(text: str) -> bool:
    """Whether the text is `<think>…</think> <answer>…</answer>`, with each tag once and only whitespace around them."""
    return all(text.count(tag) == 1 for tag in _ALL_TAGS) and _WELL_FORMED.fullmatch(text) is not None
