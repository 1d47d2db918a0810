"""Programs of codeio: the reference code run again, on what the question shows."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import signal
from typing import Any

from scripts.oracles.reading import Item, Oracle

_SECONDS = 2


def codeio(item: Item) -> str | None:
    """The program gives the output, and twice the same. Another input may give it too, which the scorer does not take."""
    question = item["question"]
    kind = "output" if "Given the following output:" in question else "input"
    shown = question.split(f"Given the following {kind}:\n\n", 1)[1].split("\n\nCan you predict", 1)[0]
    code = question.rsplit("not copy spans of code directly.", 1)[1]
    answer = json.loads(item["answer"])
    if answer == {} and shown == "{}":
        return "the program failed: no input and no output"
    try:
        given = answer if kind == "output" else ast.literal_eval(shown)
    except (ValueError, SyntaxError):
        return "the question shows a value that is no literal"
    try:
        results = [_run(code, given) for _ in range(2)]
    except Exception as error:
        return f"the program failed: {type(error).__name__}: {error}"
    if results[0] != results[1]:
        return "the program gives another output each time"
    right = str(results[0]) == shown if kind == "output" else json.dumps(results[0]) == item["answer"]
    return None if right else f"the program gives {results[0]!r}"


def _run(code: str, inputs: dict[str, Any]) -> Any:
    names: dict[str, Any] = {}
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
    signal.alarm(_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names, names)
            return names["main_solution"](**inputs)
    finally:
        signal.alarm(0)


ORACLES: dict[str, Oracle] = {"codeio": codeio}
