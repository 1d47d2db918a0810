"""Hostile answers to questions of one's own: those to any problem, and what is aimed at the verifiers that ship."""

from __future__ import annotations

from rl_lightning.types import Problem
from tests.hostile_answers import hostile_answers

HANG = ["9^{9^{9^9}}", r"\sum_{n=1}^{10^{12}} \frac{1}{n^2+1}"]
"""What takes math-verify for ever; nothing else here does."""


def _latex(marker: str) -> list[str]:
    """Code within LaTeX, formulas that explode, and formulas that nothing can read."""
    system = f"__import__('os').system('touch {marker}')"
    opened = f"open('{marker}','w')"
    return [
        *(f"${code}$" for code in (system, opened)),
        *(rf"\boxed{{{code}}}" for code in (system, opened)),
        *(rf"\text{{{code}}}" for code in (system, opened)),
        *(rf"\operatorname{{{code}}}(1)" for code in (system, opened)),
        rf"\frac{{{system}}}{{1}}",
        rf"x_{{{system}}}",
        rf"\sqrt[{opened}]{{25}}",
        rf"\begin{{pmatrix}}{system}\end{{pmatrix}}",
        rf"\write18{{touch {marker}}}",
        rf"\input{{|touch {marker}}}",
        rf"\immediate\write18{{touch {marker}}}",
        rf"\def\x{{\x\x}}\x {system}",
        r"\def\a{\a\a}\a",
        r"\frac{1}{" * 60 + "1" + "}" * 60,
        r"\sqrt{" * 200 + "2" + "}" * 200,
        r"\left(" * 300,
        "{" * 900,
        "^{2" * 300,
        "x^" * 400,
        r"\boxed{" * 120 + "1" + "}" * 119,
        "$" * 900,
        r"$\$" * 300,
        r"\\" * 450,
        r"\frac{0}{0}",
        r"\infty - \infty",
        r"\text{nan}",
        r"\begin{matrix}" * 60,
        "1+" * 480 + "1",
        "\\",
        r"\boxed{}",
    ]


def _bombs() -> list[str]:
    """Answers that make parsers and regular expressions work for ever, or mean something else to each of them."""
    return [
        "a" * 990 + "!",
        "0" * 990 + "x",
        "aaab" * 200,
        " " * 900 + "x",
        "12 " + "apple" * 150,
        '{"a": 1e999}',
        '{"a": 1, "a": 1, "b": 2}',
        "[1e400]",
        '{"__proto__": {}}',
        '"\\ud800"',
        '"' + "\\u0041" * 150 + '"',
        '{"$ref": "file:///etc/passwd"}',
        "[" + "[]," * 300 + "[]]",
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        "&lol9;",
        "!!python/object/apply:os.system ['true']",
        "\u202e7777",
        "７７７７",
        "²",
        "Ⅴ",
        "𝟕𝟕",
        "\u0660\u0661",
        "Α",  # the Greek letter
        "В",  # the Cyrillic letter
        "a\u0300" * 400,
    ]


def _near(right: str) -> list[str]:
    """A right answer next to something that makes it another one."""
    return [
        f"{right} or 7777",
        f"7777 or {right}",
        f"not {right}",
        f"{right}\n7777",
        f"7777\n{right}",
        f"{right}; 7777",
        f"{right} 7777",
        f"(({right} 7",
        f"{right}\x00",
        f"${right}$, no $7777$",
        f"$7777$, no ${right}$",
        f"${right}$ ${right}7$",
        rf"\boxed{{7777}} \boxed{{{right}}}",
        rf"\boxed{{{right}}} \boxed{{7777}}",
        f"7777 = {right}",
        f"x = 7777 = {right}",
        f"The answer is not {right}.",
        f"The answer is 7777. The answer is {right}.",
        f"**7777** {right}",
        f"**{right}** **7777**",
        f"`{right}` `7777`",
        f"<answer>{right}</answer><answer>7777</answer>",
        f"{right}?7",
        f"{right} != {right}",
        f"7777 ≈ {right}",
        f"7777≈{right}",
    ]


def hostile_to_verifiers(problem: Problem, marker: str) -> list[str]:
    """Over 200 answers to `problem` none of which may be paid in full, hang for longer than the time limit, or run.

    Args:
        problem: has an expected answer.
        marker: a path that does not exist; an answer that is run as code creates it.
    """
    answers = [*hostile_answers(problem, marker), *_latex(marker), *_bombs(), *_near(str(problem.expected)), *HANG]
    return list(dict.fromkeys(answers))
