"""Intervals between dates that upstream miscounts, or of which it writes another year."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, differs, groups


def calendar_arithmetic(item: Item) -> str | None:
    """Upstream writes the first date's year for a second date in the next year."""
    end = item["metadata"].get("end_date")
    return "the end has another year" if end and str(date.fromisoformat(end).year) not in item["question"] else None


def time_intervals(item: Item) -> str | None:
    """Upstream truncates milliseconds as floats, loses the time of day after a weekday in parentheses, and lets intervals end
    before they start."""
    start, end = _moments(item["question"])
    (form,) = groups(r" in ((?:D days|HH)[^.]*(?:\.mmm)?)\.$", item["question"])
    if end < start:
        return "it ends before it starts"
    passed = end - start
    seconds, milliseconds = int(passed.total_seconds()), passed.microseconds // 1000
    hours = seconds // 3600 if form.startswith("HH") else seconds % 86400 // 3600
    clock = f"{hours:02d}:{seconds // 60 % 60:02d}"
    if ":SS" in form:
        clock += f":{seconds % 60:02d}"
    if "mmm" in form:
        clock += f".{milliseconds:03d}"
    days = f"{passed.days} days"
    return differs(item, days if form == "D days" else f"{days}, {clock}" if form.startswith("D") else clock)


def _moments(question: str) -> list[datetime]:
    """The two moments of the question."""
    body = re.sub(r"[.?] (?:What|How|Please|Express|Give|Answer)\b.*$", "", question)
    both = re.split(r"between |from |(?:started|departed|began) at ", body, maxsplit=1)[1]
    first, second = re.split(r" and (?:ended at|completed at|arrived at) | and | to ", both, maxsplit=1)
    return [_moment(first), _moment(second)]


_WEEKDAY = re.compile(r"\(?\b(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b\)?,? ?")
_DATES = ("%Y-%m-%d", "%B %d %Y", "%b %d %Y", "%m/%d/%Y", "%d %B %Y", "")
_CLOCKS = ("", "%H:%M", "%H:%M:%S", "%H:%M:%S.%f")


def _moment(text: str) -> datetime:
    """A date, a time of day or both, in any of the forms of the task, in UTC.

    Raises:
        ValueError: another form.
    """
    plain = _WEEKDAY.sub("", text.rstrip(". ")).replace(" at ", " ").replace(",", "").strip()
    zone = " %z" if re.search(r" [+-]\d{4}$", plain) else ""
    for form in (f"{day} {clock}{zone}".strip() for day in _DATES for clock in _CLOCKS):
        try:
            found = datetime.strptime(plain, form)
        except ValueError:
            continue
        return found.replace(tzinfo=None) - (found.utcoffset() or timedelta(0))
    raise ValueError(f"not a date or time: {text}")
