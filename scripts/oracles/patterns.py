"""Letters drawn in figlet fonts, grids made by a rule, sequences: is there another answer that fits what is shown?"""

from __future__ import annotations

import re
from functools import cache
from string import ascii_uppercase

import numpy as np
import pyfiglet

from scripts.oracles.reading import Item, Oracle, differs, exact


def figlet_font(item: Item) -> str | None:
    """No letter of the word looks like another one, or like nothing."""
    glyphs = _glyphs(item["metadata"]["font"])
    for letter in sorted(set(item["answer"])):
        alike = [other for other in ascii_uppercase if other != letter and glyphs[other] == glyphs[letter]]
        if alike or not glyphs[letter].strip():
            return f"{letter} looks like {alike or 'nothing'} in {item['metadata']['font']}"
    return None


@cache
def _glyphs(font: str) -> dict[str, str]:
    return {letter: pyfiglet.figlet_format(letter, font=font) for letter in ascii_uppercase}


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
            grid = np.where(values == target, "✅", "❌")
            if (grid == shown)[seen].all():
                fits += 1
                if not (grid == answer).all():
                    return "another rule fits, with another completion"
    return None if fits else "no rule fits"


@cache
def _values(rows: int, columns: int) -> list[np.ndarray]:
    """Each operation's results by each divisor."""
    operations = (lambda x, y: x + y, lambda x, y: abs(x - y), lambda x, y: x * y, lambda x, y: x**y)
    results = [[[operation(x, y) for x in range(columns)] for y in range(rows)] for operation in operations]
    return [np.array([[value % d for value in row] for row in grid]) for grid in results for d in range(1, 21)]


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


_NUMBER = r"\$?-?\d[\d,]*(?:\.\d+)?%?"
_EQUATION = re.compile(rf"({_NUMBER}(?:\s*[-+*/x]\s*{_NUMBER})+)\s*=\s*({_NUMBER})")


def gsm_symbolic(item: Item) -> str | None:
    """Each equation of the worked solution holds, and the answer is its last number."""
    solution = item["metadata"]["answer_cot"]
    worked, last = solution.split("####")
    if float(last.replace(",", "").strip("$% ")) != float(item["answer"]):
        return f"the solution ends with {last}"
    for left, right in _EQUATION.findall(re.sub(r"(?<=\d) (?:[a-z]+ )?(?=[-+*/x=] )", " ", worked)):
        value, stated = (_value(text) for text in (left, right))
        if abs(value - stated) > 0.006 and abs(value - stated / 100) > 6e-5 and abs(value - stated * 100) > 0.6:
            return f"{left} is {value:g}, not {right}"
    if float(item["answer"]) < 0:
        return "negative"
    return None


def _value(text: str) -> float:
    plain = re.sub(r"([\d.]+)%", r"(\1/100)", text.replace(",", "").replace("$", "").replace("x", "*"))
    return float(exact(re.sub(r"\b0+(?=\d)", "", plain)))


ORACLES: dict[str, Oracle] = {
    "figlet_font": figlet_font,
    "gsm_symbolic": gsm_symbolic,
    "modulo_grid": modulo_grid,
    "number_sequence": number_sequence,
}
