"""How a completion gives its answer: read it, and grade its form, in time linear in its length.

`answer_format` makes a format from the setting `data.answer_format`. What a model writes is hostile: no format raises an error on
it, and a user's regular expression, which may take exponential time, has a time limit.
"""

from __future__ import annotations

import difflib
import functools
import re
from abc import ABC, abstractmethod
from collections import Counter

import regex

from rl_lightning.types import UserError, require

PATTERN_SECONDS = 0.5
"""Time limit of a user's regular expression on one completion, in seconds; where it takes longer, there is no
answer."""


class AnswerFormat(ABC):
    """One way to give the answer; made by `answer_format`.

    Attributes:
        name: the setting that it was made from.
        instructions: the system prompt that asks for this format; empty where nobody can know it.
    """

    name: str
    instructions: str

    @abstractmethod
    def extract(self, text: str) -> str | None:
        """The answer in a completion, stripped; None where there is none."""

    @abstractmethod
    def is_well_formed(self, text: str) -> bool:
        """Whether a completion has the format exactly."""

    @abstractmethod
    def degree(self, text: str) -> float:
        """How much of the format a completion has, in [0, 1]. 1 only where it is well formed; repairing a fault never lowers it."""

    @abstractmethod
    def _written(self, thinking: str, answer: str) -> str:
        """The assistant's text, not yet checked."""

    def write(self, thinking: str, answer: str) -> str:
        """An assistant's text in this format, as worked examples in a prompt need it.

        Args:
            thinking: the working before the answer; empty for the answer alone, which is still well formed.
            answer: the answer.

        Raises:
            UserError: the format cannot express it, such as an answer of two lines in `last_line`; always for a regular expression,
                of which nobody can know what it matches.
        """
        text = self._written(thinking, answer.strip())
        if not self.is_well_formed(text) or self.extract(text) != answer.strip():
            raise UserError(
                f"data.answer_format: {self.name} cannot write the answer {answer[:60]!r} after this thinking"
            )
        return text


_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_ANY_TAG = re.compile("|".join(_TAGS))
_SECTIONS = re.compile(r"\s*<think>(?P<think>.*)</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL)


class Tags(AnswerFormat):
    """`<think>…</think> <answer>…</answer>`: the answer is in the last pair of answer tags without another one between them."""

    name = "tags"
    instructions = (
        "Think step by step inside <think> and </think>, then give only the final answer inside <answer> and </answer>, "
        "like this: <think>your working</think> <answer>your answer</answer>"
    )

    def extract(self, text: str) -> str | None:
        """The content of the last `<answer>…</answer>`; one pass over the tags, where reasoning-gym's own extraction is quadratic
        in the number of opening tags."""
        answer, opened = None, None
        for tag in _ANY_TAG.finditer(text):
            if tag.group() == "<answer>":
                opened = tag.end()
            elif tag.group() == "</answer>" and opened is not None:
                answer, opened = text[opened : tag.start()].strip(), None
        return answer

    def is_well_formed(self, text: str) -> bool:
        """Whether each tag is there once, in this order, with only whitespace around the two sections."""
        return all(text.count(tag) == 1 for tag in _TAGS) and _SECTIONS.fullmatch(text) is not None

    def degree(self, text: str) -> float:
        """A quarter for each tag that is there once and in its place; so 1 only with both sections, and something in them."""
        tags = list(_ANY_TAG.finditer(text))
        counts, in_place, before, end = Counter(tag.group() for tag in tags), 0, "", 0
        for tag in tags:
            name, gap = tag.group(), text[end : tag.start()].strip()
            in_place += counts[name] == 1 and _is_in_place(name, before, gap, text, tag.end())
            # What follows a repeated tag is in its place no more than the tag itself.
            before, end = name if counts[name] == 1 else "repeated", tag.end()
        return in_place / len(_TAGS)

    def _written(self, thinking: str, answer: str) -> str:
        return f"<think>{thinking}</think> <answer>{answer}</answer>"


def _is_in_place(name: str, before: str, gap: str, text: str, end: int) -> bool:
    """Whether a tag that ends at `end` is where it belongs, by the name of the tag before it (empty: none) and the text between."""
    if name == "<think>":
        return not before and not gap
    if name == "</think>":
        return before == "<think>" and bool(gap)
    if name == "<answer>":  # thinking may be missing or not yet closed: those are faults of other tags
        return before in ("", "<think>") or (before == "</think>" and not gap)
    return before == "<answer>" and bool(gap) and not text[end:].strip()


_BRACE = re.compile(r"\\boxed\s*\{|\\[{}\\]|[{}]")
"""The start of a box; an escaped brace, which encloses nothing; a brace."""


class Boxed(AnswerFormat):
    r"""The last `\boxed{…}` with balanced braces, as most mathematics models write it."""

    name = "boxed"
    instructions = (
        r"Think step by step, then give only the final answer inside \boxed{}, once, like this: \boxed{your answer}"
    )

    def extract(self, text: str) -> str | None:
        """The content of the last box that is closed; of boxes in each other, the innermost last one."""
        opened: list[tuple[bool, int]] = []  # of each open brace, whether it is a box's, and where its content starts
        last, answer = -1, None
        for brace in _BRACE.finditer(text):
            if brace.group().endswith("{") and brace.group() != r"\{":
                opened.append((brace.group() != "{", brace.end()))
            elif brace.group() == "}" and opened:
                is_box, start = opened.pop()
                if is_box and start > last:
                    last, answer = start, text[start : brace.start()].strip()
        return answer

    def is_well_formed(self, text: str) -> bool:
        """Whether there is one box, closed and not empty; any text may be around it."""
        return _boxes(text) == 1 and bool(self.extract(text))

    def degree(self, text: str) -> float:
        """1 if it is well formed; a half if there is any box, be it open, empty or one of several."""
        return 1.0 if self.is_well_formed(text) else 0.5 * (_boxes(text) > 0)

    def _written(self, thinking: str, answer: str) -> str:
        return f"{thinking}\n\\boxed{{{answer}}}".lstrip()


def _boxes(text: str) -> int:
    return sum(brace.group().startswith(r"\boxed") for brace in _BRACE.finditer(text))


class LastLine(AnswerFormat):
    """The last line that is not empty."""

    name = "last_line"
    instructions = "Think step by step, then give only the final answer, alone on the last line."

    def extract(self, text: str) -> str | None:
        """The last line with something in it."""
        return text.rstrip().rpartition("\n")[2].strip() or None

    def is_well_formed(self, text: str) -> bool:
        """Whether there is such a line; whether it holds only the answer cannot be known."""
        return bool(text.strip())

    def degree(self, text: str) -> float:
        """1 if it is well formed, else 0: nothing is in between."""
        return float(self.is_well_formed(text))

    def _written(self, thinking: str, answer: str) -> str:
        return f"{thinking}\n{answer}".lstrip()


_NUMBER = re.compile(r"(?<![\w.,/])[+\-\u2212]?(?:\.?\d+(?:[.,/:]\d+)*)(?:[eE][+-]?\d+)?%?", re.ASCII)
"""A number as a whole: not the 2 of 5/2, nor the 5 of 1.234,5, nor the 5 of 5%, nor the 2 of H2O."""


class LastNumber(AnswerFormat):
    """The last number in the text, whatever is around it."""

    name = "last_number"
    instructions = "Think step by step, then end with the final answer: a number, and nothing after it."

    def extract(self, text: str) -> str | None:
        """The last number, with its sign, decimals, separators, denominator, exponent and per cent sign."""
        last = self._last(text)
        return None if last is None else last.group()

    def is_well_formed(self, text: str) -> bool:
        """Whether the text ends with a number; a full stop may follow."""
        last = self._last(text)
        return last is not None and text[last.end() :].strip() in ("", ".")

    def degree(self, text: str) -> float:
        """1 if it is well formed; a half if there is a number."""
        return 1.0 if self.is_well_formed(text) else 0.5 * (self._last(text) is not None)

    def _last(self, text: str) -> re.Match[str] | None:
        return functools.reduce(lambda _, number: number, _NUMBER.finditer(text), None)

    def _written(self, thinking: str, answer: str) -> str:
        return f"{thinking}\n{answer}".lstrip()


class Pattern(AnswerFormat):
    """The group `answer` of the last match of a user's regular expression.

    It may take exponential time on what a model writes, so it has `PATTERN_SECONDS`; a completion on which it takes longer has no
    answer.

    Args:
        name: the regular expression, in the syntax of the library `regex`, which is Python's and more.

    Raises:
        UserError: it does not compile, or has no group of that name.
    """

    instructions = ""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            groups = regex.compile(name).groupindex
        except regex.error as error:
            raise UserError(f"data.answer_format: {name!r} is not a regular expression: {error}") from error
        named = f"{', '.join(_NAMED)}, or a regular expression with a group (?P<answer>…)"
        near = difflib.get_close_matches(name, _NAMED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        require("data.answer_format", name, "answer" in groups, named + hint)

    def extract(self, text: str) -> str | None:
        """What the group has in the last match."""
        return _last_answer(self.name, text)

    def is_well_formed(self, text: str) -> bool:
        """Whether it matches, and its answer is not empty."""
        return bool(self.extract(text))

    def degree(self, text: str) -> float:
        """1 if it is well formed, else 0."""
        return float(self.is_well_formed(text))

    def _written(self, thinking: str, answer: str) -> str:
        raise UserError(
            f"data.answer_format: nobody can know how to write an answer for {self.name!r}; use {', '.join(_NAMED)}"
        )


@functools.lru_cache(
    maxsize=1024
)  # a completion is read several times, and a hostile one takes PATTERN_SECONDS each time
def _last_answer(pattern: str, text: str) -> str | None:
    answer = None
    try:
        for match in regex.compile(pattern).finditer(text, timeout=PATTERN_SECONDS):
            answer = match["answer"]
    except TimeoutError:
        return None
    return None if answer is None else answer.strip()


_NAMED: dict[str, type[AnswerFormat]] = {kind.name: kind for kind in (Tags, Boxed, LastLine, LastNumber)}


def answer_format(name: str) -> AnswerFormat:
    """The format of a setting `data.answer_format`.

    Args:
        name: tags, boxed, last_line, last_number, or a regular expression with a named group `(?P<answer>…)`.

    Raises:
        UserError: none of these.
    """
    return _NAMED[name]() if name in _NAMED else Pattern(name)
