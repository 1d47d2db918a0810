"""Count what a call does, in place of the seconds that it takes: those depend on the machine."""

from __future__ import annotations

import sys


def lines_run(call, *args) -> int:
    """How many lines of Python a call runs; each round of a loop counts."""
    count, before = 0, sys.gettrace()

    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        call(*args)
    finally:
        sys.settrace(before)
    return count
