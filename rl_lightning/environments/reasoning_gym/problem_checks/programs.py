"""Programs of codeio: the reference code run again, on the same input."""

from __future__ import annotations

import copy
import json
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item


def codeio(item: Item) -> str | None:
    """Upstream asks about programs that draw random numbers, that change their input before it is shown, and that failed.

    Runs upstream's program, as upstream's generator does, so it belongs in a sandboxed process.
    """
    data = item["metadata"]
    if not data["input_data"]:
        return "the program failed"
    code = item["question"].rsplit("not copy spans of code directly.", 1)[1]
    try:
        results = [_run(code, copy.deepcopy(data["input_data"])) for _ in range(2)]
    except Exception as error:  # the program may raise any
        return f"the program fails on what is shown: {type(error).__name__}"
    same = all(json.dumps(result) == json.dumps(data["output_data"]) for result in results)
    return None if same else "the program gives another output each time, or on what is shown"


def _run(code: str, inputs: dict[str, Any]) -> Any:
    names: dict[str, Any] = {}
    with redirect_stdout(StringIO()):
        exec(code, names, names)
        return names["main_solution"](**inputs)
