"""Calendars and clocks, by day numbers of the Gregorian calendar counted here."""

from __future__ import annotations

import re

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, differs

_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_DATE = rf"({'|'.join(_MONTHS)}) (\d+)(?:, (\d+))?"


def calendar_arithmetic(item: Item) -> str | None:
    question = item["question"]
    year = max(int(text) for text in re.findall(r"\b\d{4}\b", question)) if re.search(r"\b\d{4}\b", question) else 2022
    for solve in (_leap, _recurring, _counted, _from_first_day, _weekday):
        if (right := solve(question, year)) is not None:
            return differs(item, right)
    return "not understood"


def _leap(question: str, year: int) -> str | None:
    return ("Yes" if _is_leap(year) else "No") if "leap year" in question else None


def _recurring(question: str, year: int) -> int | None:
    found = re.search(rf"\b(first|second|third|fourth|last) ({'|'.join(_DAYS)})", question)
    if not found or "of the month" not in question:
        return None
    month = next(name for name in _MONTHS if name in question)
    length = _length(year, month)
    days = [d for d in range(1, length + 1) if _DAYS[(_day_number(year, month, d) - 1) % 7] == found[2]]
    place = {"first": 0, "second": 1, "third": 2, "fourth": 3, "last": -1}[found[1]]
    return days[place] if place < len(days) else -1


def _counted(question: str, year: int) -> int | None:
    found = re.findall(rf"(?:{'|'.join(_DAYS)}), {_DATE}", question)
    if len(found) != 2:
        return None
    first, last = (_day_number(year, month, int(day)) for month, day, _ in found)
    names = [_DAYS[(day - 1) % 7] for day in range(first, last + 1)]
    if "business" in question or "excluding weekends" in question:
        return sum(name not in ("Saturday", "Sunday") for name in names)
    wanted = re.search(rf"(?:How many|occurrences of|how many times does) ({'|'.join(_DAYS)})", question)
    return None if wanted is None else names.count(wanted[1])


def _from_first_day(question: str, year: int) -> str | None:
    found = re.search(rf"(?:was a|fell on a|where) ({'|'.join(_DAYS)})", question)
    if not found or "what day of the week was it" in question:
        return None
    month, day, _ = re.findall(_DATE.replace("January|", "January(?! 1\\b)|"), question)[-1]
    passed = _day_number(2022, month, int(day)) - _day_number(2022, "January", 1)
    return _DAYS[(_DAYS.index(found[1]) + passed) % 7]


def _weekday(question: str, year: int) -> str:
    if numeric := re.search(r"(\d\d)/(\d\d)/(\d{4})", question):
        month, day, year = _MONTHS[int(numeric[1]) - 1], int(numeric[2]), int(numeric[3])
    else:
        month, text, _ = re.findall(_DATE, question)[0]
        day = int(text)
    moved = re.search(r"(\d+)(?: |-)days?\b(?: (ago|before))?", question)
    steps = 0
    if moved:
        steps = int(moved[1]) * (-1 if moved[2] or "Count backward" in question else 1)
    return _DAYS[(_day_number(year, month, day) - 1 + steps) % 7]


def _is_leap(year: int) -> bool:
    return year % 400 == 0 or (year % 4 == 0 and year % 100 != 0)


def _length(year: int, month: str) -> int:
    return [31, 29 if _is_leap(year) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][_MONTHS.index(month)]


def _day_number(year: int, month: str, day: int) -> int:
    """1 for Monday, 1 January of the year 1."""
    before = 365 * (year - 1) + (year - 1) // 4 - (year - 1) // 100 + (year - 1) // 400
    return before + sum(_length(year, name) for name in _MONTHS[: _MONTHS.index(month)]) + day


ORACLES: dict[str, Oracle] = {"calendar_arithmetic": calendar_arithmetic}
