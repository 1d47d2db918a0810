r"""Take the dress off an answer: what it says without the marks of chat, such as `**5**`, `\boxed{5}` or "The answer is 5.".

Only what cannot change the meaning is taken off, and an examiner would not mind; docs/scoring.md has the table. The task's own
rules then decide about the plain answer.
"""

from __future__ import annotations

import re

from rl_lightning.types import Problem

_LAYERS = 8
"""At most so many marks around each other are taken off, which bounds the time."""

_MARKS = (
    *((r"\boxed{", "}"), (r"\text{", "}"), (r"\(", r"\)"), (r"\[", r"\]")),
    *(("$$", "$$"), ("$", "$"), ("**", "**"), ("*", "*"), ("`", "`")),
)
"""What opens and closes a mark, longer ones first."""

_LEAD_IN = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+|my\s+)?(?:final\s+|correct\s+)?answer(?:\s+is\s*:?|\s*:)\s"
    r"|\*\*(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s+is)?(?::\*\*|\*\*\s*:)\s",
    re.IGNORECASE,
)
_FENCE = re.compile(r"```[a-z]*\s*\n(?P<inside>(?:[^`]|`(?!``))+)\n\s*```", re.IGNORECASE)
_QUOTED = re.compile("\"([^\"]+)\"|'([^']+)'|\u201c([^\u201c\u201d]+)\u201d|\u2018([^\u2018\u2019]+)\u2019")
_NAMES_QUOTES = re.compile(r"\bquot|\bJSON\b", re.IGNORECASE)
"""A question in which quotes have a meaning, or that forbids them."""

_NAMED = {
    word.casefold(): word
    for word in ("Yes", "No", "True", "False", "Peng", "Chi", "Pass", "on", "off", "undetermined", "infeasible")
}
"""Answers whose letters may be small or capital."""

_EXPECTED_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?", re.ASCII)
_SEPARATED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_WITH_UNIT = re.compile(r"(?P<number>[+-]?\d[\d,.]*)\s+(?P<unit>[A-Za-z]+(?: [A-Za-z]+){0,2})", re.ASCII)
_EQUATION = re.compile(r"(?P<variable>[A-Za-z])\s*=\s*(?P<value>\S.*)", re.DOTALL)
_ASKED_FOR = re.compile(r"\b(?:for|of|[Ff]ind)\s+\$?([A-Za-z])\b(?!')")
_HOW_MANY = re.compile(r"\bhow many\s+([A-Za-z]+(?: [A-Za-z]+){0,2})", re.IGNORECASE)


def plain_answers(problem: Problem, answer: str) -> list[str]:
    """The plain readings of a dressed answer, at most two, in time linear in its length; none if it is plain already.

    The first has no marks around it, no lead-in and no spaces at the ends of lines. The second also lacks a full stop at the end,
    and quotes around it where the question does not speak of such, and writes yes, no and other words that the question names as
    it does. Where the expected answer is a number, the second also lacks a plus sign, separators of thousands, the unit that the
    question asks for ("How many apples …", `5 apples`) and the variable that it asks for ("Find the value of x …", `x = 5`).

    Args:
        problem: what is asked; its question says which unit and variable are meant.
        answer: the answer as written.
    """
    plain = re.sub(r"(?<=[^ \t])[ \t]+\n", "\n", bare(answer.strip()).replace("\u2212", "-"))
    full = plain[:-1].rstrip() if plain.endswith(".") and not plain.endswith("..") else plain
    if (quoted := _QUOTED.fullmatch(full)) and not _NAMES_QUOTES.search(problem.question):
        full = next(filter(None, quoted.groups())).strip()
    full = _plain_word(problem.question, full)
    if problem.expected is not None and _EXPECTED_NUMBER.fullmatch(problem.expected.strip()):
        full = _plain_number(problem.question, full)
    readings = dict.fromkeys(text for text in (plain, full) if text)
    return [text for text in readings if text != answer.strip()]


def bare(text: str) -> str:
    """The text without marks around it and without a lead-in."""
    for _ in range(_LAYERS):
        inner = _inside_mark(text) or (_inside_mark(text[:-1]) if text.endswith(".") else None)
        lead_in = _LEAD_IN.match(text)
        if inner is None and lead_in is None:
            break
        text = (inner or text[lead_in.end() if lead_in else 0 :]).strip()
    return text


def _inside_mark(text: str) -> str | None:
    """What a mark encloses that goes around the whole text; None if there is none."""
    if fenced := _FENCE.fullmatch(text):
        return fenced["inside"].strip()
    if not text.startswith(("\\", "$", "*", "`")):  # as most answers do not
        return None
    for opening, closing in _MARKS:
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            inner = text[len(opening) : -len(closing)].strip()
            if inner and _is_one(inner, opening, closing):
                return inner
    return None


def _is_one(inner: str, opening: str, closing: str) -> bool:
    """Whether the mark around the text is one, and not the start of a first and the end of a last, as in `$5$ and $6$`."""
    if closing == "}":
        return _is_balanced(inner)
    if opening not in inner and closing not in inner:
        return True
    # In a formula an asterisk multiplies; one with a space on one side opens or closes a mark.
    return closing in ("*", "**") and not re.search(r"^\*|(?<=[^\s*])\*+(?=\s|$)|(?<=\s)\*+(?=[^\s*])", inner)


def _is_balanced(text: str) -> bool:
    depth = 0
    for brace in re.finditer(r"\\[{}\\]|[{}]", text):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth < 0:
            return False
    return depth == 0


def _plain_number(question: str, text: str) -> str:
    """The number that the text says, as Python writes numbers; the text itself where it is not surely one."""
    if (equation := _EQUATION.fullmatch(text)) and set(_ASKED_FOR.findall(question)) == {equation["variable"]}:
        text = bare(equation["value"])
    if (counted := _WITH_UNIT.fullmatch(text)) and _is_unit(counted["unit"], question):
        text = counted["number"]
    if _SEPARATED.fullmatch(text):
        text = text.replace(",", "")
    return text[1:] if _EXPECTED_NUMBER.fullmatch(text) and text.startswith("+") else text


def _plain_word(question: str, text: str) -> str:
    """A word of a few that the question names, in the question's letters; any other text itself."""
    word = _NAMED.get(text.casefold())
    return word if word is not None and re.search(rf"\b{re.escape(word)}\b", question) else text


def _is_unit(unit: str, question: str) -> bool:
    """Whether the words are those that the last "how many" of the question asks for, one of them or one thing of several."""
    asked = [words.lower().split() for words in _HOW_MANY.findall(question)]
    given = unit.lower().split()
    return bool(asked) and given == asked[-1][: len(given)]
