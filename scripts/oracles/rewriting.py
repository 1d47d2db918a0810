"""Rules that rewrite a string, a hand of cards or counts, followed as the question states them."""

from __future__ import annotations

import re
from itertools import pairwise

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, between, differs, whole_numbers


def ab(item: Item) -> str | None:
    """Neighbours whose marks face each other swap if they differ and vanish if they do not."""
    tokens = between(item["question"], "following program:", "Return").split()
    while (k := next((k for k, (a, b) in enumerate(pairwise(tokens)) if a[-1] == b[0] == "#"), None)) is not None:
        tokens[k : k + 2] = [] if tokens[k][0] == tokens[k + 1][-1] else [tokens[k + 1], tokens[k]]
    return differs(item, " ".join(tokens))


def bf(item: Item) -> str | None:
    program, tape, at, cell, printed = item["metadata"]["bf_program"], [0] * 3000, 0, 0, ""
    if program not in item["question"]:
        return "the question has another program"
    match: dict[int, int] = {}
    opened: list[int] = []
    for k, sign in enumerate(program):
        if sign == "[":
            opened.append(k)
        elif sign == "]":
            match[k] = opened.pop()
            match[match[k]] = k
    while at < len(program):
        sign = program[at]
        cell += {">": 1, "<": -1}.get(sign, 0)
        tape[cell] = (tape[cell] + {"+": 1, "-": -1}.get(sign, 0)) % 256
        printed += chr(tape[cell]) if sign == "." else ""
        if (sign == "[" and not tape[cell]) or (sign == "]" and tape[cell]):
            at = match[at]
        at += 1
    return differs(item, printed)


_INSERTED = {"ABCD": "A", "BCDE": "B", "CDEA": "C", "DEAB": "D", "EABC": "E"}


def string_insertion(item: Item) -> str | None:
    text = between(item["question"], "according to the pattern: ")
    return differs(item, re.sub("|".join(_INSERTED), lambda part: part.group() + _INSERTED[part.group()], text))


_Rule = tuple[dict[str, int], dict[str, int]]
_BLOCKS = ["[A]", "[B]", "[C]", "{A}", "{B}", "{C}", "(A)", "(B)", "(C)"]
_MACHINES = ["A", "B", "C", "X", "Y", "Z"]


def string_synthesis(item: Item) -> str | None:
    rules: list[_Rule] = [
        ({"[A]": 1, "[B]": 1, "[C]": 1}, {"{A}": 1}),
        ({"[A]": 1, "[B]": 1}, {"{C}": 1}),
        ({"[B]": 1, "[C]": 1}, {"{B}": 1}),
        ({"[C]": 2}, {"{C}": 1}),
        ({"{A}": 1, "{C}": 1}, {"(A)": 1, "(B)": 1}),
        ({"{B}": 2}, {"(C)": 1}),
    ]
    start = whole_numbers(between(item["question"], "Now, you have ", "blocks"))
    return differs(item, _exhaust(dict(zip(_BLOCKS, start + [0] * 6, strict=True)), rules))


def string_splitting(item: Item) -> str | None:
    rules: list[_Rule] = [
        ({"A": 1}, {"X": 2, "Y": 1}),
        ({"B": 2}, {"X": 1}),
        ({"C": 2}, {"Y": 1}),
        ({"B": 1, "C": 1}, {"A": 1}),
        ({"X": 1, "Y": 1}, {"Z": 1}),
    ]
    start = whole_numbers(between(item["question"], "Now, you have ", "Provide"))
    return differs(item, _exhaust(dict(zip(_MACHINES, start + [0] * 3, strict=True)), rules))


def _exhaust(counts: dict[str, int], rules: list[_Rule]) -> str:
    """After each use of a rule the first one is tried again."""
    while rule := next((r for r in rules if all(counts[name] >= n for name, n in r[0].items())), None):
        for sign, part in zip((-1, 1), rule, strict=True):
            for name, number in part.items():
                counts[name] += sign * number
    return " ".join(map(str, counts.values()))


def string_manipulation(item: Item) -> str | None:
    rules = re.findall(r"^\d+\. (If .*)$", item["question"], re.MULTILINE)
    text, seen = between(item["question"], "list of rules:"), set[str]()
    while text not in seen:
        seen.add(text)
        last = text
        text = next((new for rule in rules if (new := _rewritten(text, rule)) is not None), text)
    return differs(item, last)


def _rewritten(text: str, rule: str) -> str | None:
    """The string after a rule in words; None where it does not apply."""
    if "even number of 'b's" in rule:
        count = text.count("b")
        return text + "ab" if count and count % 2 == 0 else None
    if "length is greater than 15" in rule:
        return text[: len(text) // 2] + text[len(text) // 2 + 1 :] if len(text) > 15 else None
    quoted = re.findall(r"'(\w+)'", rule)
    part = quoted[0]
    at = {"prefix": 0, "starts": 0, "suffix": len(text) - len(part), "ends": len(text) - len(part)}
    place = next((at[word] for word in at if word in rule), text.find(part, 1 if "not at the start" in rule else 0))
    if place < 0 or text[place : place + len(part)] != part:
        return None
    if "remove the first character" in rule or "remove the second character" in rule:
        return text[1:]  # of two equal ones
    if "remove the last character" in rule:
        return text[:-1]
    new = quoted[1] if "replace" in rule else ""
    text = text[:place] + new + text[place + len(part) :]
    if "delete the last character" in rule:
        text = text[:-1]
    if added := re.search(r"(append|prepend) '(\w+)'", rule):
        text = text + added[2] if added[1] == "append" else added[2] + text
    return text


ORACLES: dict[str, Oracle] = {
    "ab": ab,
    "bf": bf,
    "string_insertion": string_insertion,
    "string_manipulation": string_manipulation,
    "string_splitting": string_splitting,
    "string_synthesis": string_synthesis,
}
