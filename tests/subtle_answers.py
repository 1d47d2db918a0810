"""Answers that are almost right, or right only to a machine: look-alikes, several at once, near misses, odd numbers."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator

from tests.odd_answers import ODD_ANSWERS

_BOLD = str.maketrans("0123456789", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗")
_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
_DEVANAGARI = str.maketrans("0123456789", "०१२३४५६७८९")
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_CIRCLED = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")
_CYRILLIC = str.maketrans("aeopcxyABEKMHOPCTX", "аеорсхуАВЕКМНОРСТХ")
_GREEK = str.maketrans("ABEZHIKMNOPTYX", "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")


def look_alikes(right: str) -> Iterator[str]:
    """The right answer in other characters, or with characters that nobody sees."""
    for table in (_BOLD, _WIDE, _ARABIC, _DEVANAGARI, _SUPERSCRIPT, _CIRCLED, _CYRILLIC, _GREEK):
        yield right.translate(table)
    for mark in (
        "\u200b",
        "\u2060",
        "\ufeff",
        "\u00ad",
        "\u034f",
        "\u0301",
        "\u202e",
        "\u2066",
        "\ufe0f",
        "\U000e0031",
    ):
        yield right[:1] + mark + right[1:]
        yield right + mark
    for space in ("\u00a0", "\u2009", "\u2028", "\u3000", "\u0085", "\v"):
        yield right.replace(" ", space) + space
    yield unicodedata.normalize("NFD", right)
    yield right.replace("K", "\u212a").replace("k", "\u212a")
    yield right.replace("s", "ſ").replace("S", "ſ")
    yield right.replace("i", "ı").replace("I", "İ")
    yield right.replace("ss", "ß").replace("fi", "ﬁ")
    yield right.replace("-", "‐").replace("/", "⁄").replace("*", "∗").replace(",", "‚")
    yield right.replace("-", "–").replace("/", "∕").replace("*", "×").replace('"', "“")


def several(right: str) -> Iterator[str]:
    """The right answer among others, or with more of its kind."""
    for other in (
        "Yes",
        "No",
        "True",
        "False",
        "0",
        "1",
        "-1",
        "on",
        "off",
        "undetermined",
        "infeasible",
        "Peng",
        "Chi",
        "Pass",
    ):
        if other.casefold() != right.casefold():
            yield from (
                f"{right} {other}",
                f"{other} {right}",
                f"{right}, {other}",
                f"{other}\n{right}",
                f"{right}/{other}",
            )
            yield from (f"not {right}", f"{other} (not {right})", f"{right}?", f"{right} or {other}")
    yield from (f"{right} {right}", f"{right}\n{right}", f"{right}, {right}", f"{right}{right}", f"[{right}, {right}]")
    yield from (
        f"({right})({right})",
        f"{right} = {right}",
        f"{right};{right}",
        f"{right}#{right}",
        f"{right}//{right}",
    )
    yield from (
        f"{right}\n\n0",
        f"0\n\n{right}",
        f"{right} # 0",
        f"{right} or 0",
        f"{right} if True else 0",
        f"0 or {right}",
    )


def near_misses(right: str) -> Iterator[str]:
    """One digit, letter, word or line of the right answer is another one, is missing, or is there twice."""
    for k in dict.fromkeys([0, 1, len(right) // 3, len(right) // 2, len(right) - 2, len(right) - 1]):
        if 0 <= k < len(right):
            character = right[k]
            yield right[:k] + right[k + 1 :]
            yield right[:k] + character + right[k:]
            if character.isdigit():
                yield right[:k] + str((int(character) + 1) % 10) + right[k + 1 :]
            elif character.isalpha():
                yield right[:k] + ("b" if character in "aA" else "a") + right[k + 1 :]
                yield right[:k] + character.swapcase() + right[k + 1 :]
    for separator in (" ", "\n", ", ", " → ", " × "):
        parts = right.split(separator)
        if len(parts) > 1:
            yield separator.join(parts[::-1])
            yield separator.join(parts[1:])
            yield separator.join(parts[:-1])
            yield separator.join([*parts, parts[-1]])
            yield separator.join([parts[1], parts[0], *parts[2:]])
            yield separator.join([*parts, ""]) + "0"
    yield from (
        f"-{right}",
        f"+{right}",
        f"--{right}",
        f"~{right}",
        f"!{right}",
        f"{right}.5",
        f"{right}0",
        f"0{right}",
        f"{right}e0",
    )
    yield from (
        f"{right}e1",
        f"{right}%",
        f"${right}",
        f"{right}°",
        f"{right}i",
        f"{right}j",
        f"{right}!",
        f"{right}L",
        f"0x{right}",
    )
    yield from (
        right.lower(),
        right.upper(),
        right.title(),
        right[::-1],
        right.replace(" ", ""),
        " ".join(right),
        f"'{right}'",
    )
    yield from (
        f'"{right}"',
        json.dumps(right),
        f"[{right}]",
        f"({right})",
        f"{{{right}}}",
        f"[[{right}]]",
        f"{right},",
        f",{right}",
    )


def near_numbers(right: str) -> Iterator[str]:
    """A number that is not quite the right one, and ways to write numbers that a program takes for others."""
    if not re.fullmatch(r"[+-]?\d+(?:\.\d+)?", right):
        return
    value = float(right)
    for step in (1, -1, 0.5, 1e-2, 1e-3, 1e-4, 1e-6, 1e-9, 1e-12, -1e-15):
        yield repr(value + step)
    for factor in (1 + 1e-3, 1 + 1e-6, 1 + 1e-9, 1 + 1e-12, 1 + 2e-16, -1, 10, 1 / 3):
        yield repr(value * factor)
    yield from (
        f"{right}.0000000000000000000001",
        f"{right}_0",
        f"{right[:1]}_{right[1:]}",
        f"{right},0",
        f"{right} 000",
    )
    yield from (
        f"{value:e}",
        f"{right}E+0",
        f"{right}E-0",
        f"{right}.",
        f".{right}",
        f"{right}..",
        f"{right}/1",
        f"{right}/2",
    )
    yield from (
        f"{right}*1",
        f"{right}+0",
        f"{right}-0",
        f"{right}**1",
        f"{right}//1",
        f"{right}%1000",
        f"abs({right})",
        f"int({right})",
    )
    yield from (
        f"{right}nan",
        f"{right}inf",
        f"nan+{right}",
        f"{right}+0j",
        f"{right}±1",
        f"~{right}",
        f"<{right}",
        f">={right}",
        f"≈{right}",
    )
    yield from (
        f"{right[:-1]},{right[-1:]}",
        f"{right[:1]},{right[1:]}",
        f"{right[:-2]},{right[-2:]}",
        f"{right[:-1]} {right[-1:]}",
    )
    yield from (f"{right}'000", f"{right}.000,5", f"{right}·0", f"{right}٫5", f"{right}٬000")


def subtle_answers(right: str) -> list[str]:
    """All of them for a right answer, each once, without the right answer itself."""
    made = (*look_alikes(right), *several(right), *near_misses(right), *near_numbers(right), *ODD_ANSWERS)
    return [answer for answer in dict.fromkeys(made) if answer.strip() != right.strip()]
