"""Select the texts that go into the page: whole groups of rollouts from evenly spaced steps, and evaluation problems; bounded."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rl_lightning.report.run_files import Run
from rl_lightning.types import UserError

MOST_COMPLETIONS = 8_192
MOST_CHARACTERS = 12_000_000
"""Limit on the text of the rollouts in a page: about 4 MB when compressed, which opens in well under a second."""
MOST_PROBLEM_CHARACTERS = 4_000_000
LONGEST_TEXT = 20_000
"""Characters of one text; of a longer one the page has the beginning and the end."""

_COLUMNS = (
    *("step", "task", "index", "group", "prompt", "completion", "expected", "exact", "format", "failure", "reward"),
    *("advantage", "tokens", "entropy", "finish", "answer"),
)


def packed(value: Any) -> str:
    """Encode as JSON, gzip and base64, which the page unpacks by DecompressionStream; nothing in it can end a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode("ascii")


def rollouts(runs: list[Run]) -> dict[str, Any]:
    """Return for every run its name, a note on how much of it is included, and the groups of the chosen steps."""
    with_some = [(colour, run) for colour, run in enumerate(runs) if run.rollout_files]
    share = len(with_some) or 1
    return {"runs": [{"colour": colour, **_of_run(run, share)} for colour, run in with_some]}


def _of_run(run: Run, share: int) -> dict[str, Any]:
    by_file = {path: _steps(path) for path in run.rollout_files}
    steps = sorted({step for found in by_file.values() for step in found})
    total = sum(sum(found.values()) for found in by_file.values())
    chosen = evenly_spaced(steps, max(2, MOST_COMPLETIONS * len(steps) // (share * max(1, total))))
    groups = _groups(by_file, set(chosen))
    while len(chosen) > 1 and _characters(groups) > MOST_CHARACTERS / share:
        chosen = evenly_spaced(chosen, max(1, len(chosen) // 2))
        groups = [group for group in groups if group["step"] in set(chosen)]
    here = sum(len(group["rows"]) for group in groups)
    if here == total:
        note = f"All {total:,} completions of the run."
    else:
        note = (
            f"{here:,} of {total:,} completions: every group of {len(chosen)} of {len(steps):,} rollouts, evenly spaced, the first "
            "and the last among them. The others are in the run's rollouts/ directory."
        )
    return {"name": run.name, "note": note, "steps": chosen, "groups": groups}


def evenly_spaced(steps: list[int], most: int) -> list[int]:
    """Return at most `most` of the steps, evenly spaced; always the last one, and the first one too if most is 2 or more."""
    if len(steps) <= most:
        return steps
    if most == 1:
        return steps[-1:]
    return [steps[round(k * (len(steps) - 1) / (most - 1))] for k in range(most)]


def _steps(path: Path) -> dict[int, int]:
    """Return the steps in a file, and the number of rows of each."""
    found: dict[int, int] = {}
    for step in _read(path, ["step"])["step"]:
        found[step] = found.get(step, 0) + 1
    return found


def _read(path: Path, columns: list[str], steps: set[int] | None = None) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        filters = [("step", "in", steps)] if steps else None
        table = pyarrow.parquet.read_table(path, columns=columns, filters=filters, use_threads=False)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as rollouts ({str(error).splitlines()[0]}); move it away") from error
    return table.to_pydict()


def _groups(by_file: dict[Path, dict[int, int]], chosen: set[int]) -> list[dict[str, Any]]:
    """Return the groups of the chosen steps, in the order in which they were sampled."""
    groups: dict[tuple[int, int, str, int], dict[str, Any]] = {}
    for path, steps in by_file.items():
        if not (wanted := chosen & set(steps)):
            continue
        columns = _read(path, list(_COLUMNS), wanted)
        for values in zip(*(columns[name] for name in _COLUMNS), strict=True):
            row = dict(zip(_COLUMNS, values, strict=True))
            key = (row["step"], row["group"], row["task"], row["index"])
            if key not in groups:
                groups[key] = {"step": row["step"], "task": row["task"], "index": row["index"], "rows": []}
                groups[key] |= {"prompt": bounded(row["prompt"]), "expected": bounded(row["expected"])}
            groups[key]["rows"].append(_completion(row))
    return [groups[key] for key in sorted(groups)]


def _completion(row: dict[str, Any]) -> list[Any]:
    """Return a completion as a list, to save space.

    Returns:
        text, exact, format, failure, reward, advantage, tokens, entropy, truncated, answer.
    """
    numbers = [_finite(row[name]) for name in ("reward", "advantage", "tokens", "entropy")]
    return [
        bounded(row["completion"]),
        _finite(row["exact"]),
        row["format"],
        row["failure"],
        *numbers,
        row["finish"] == "length",
        bounded(row["answer"]),
    ]


def _finite(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _characters(groups: Iterable[dict[str, Any]]) -> int:
    return sum(len(group["prompt"] or "") + sum(len(row[0]) for row in group["rows"]) for group in groups)


def bounded(text: str | None) -> str | None:
    """Return the text, or if it is too long its two ends and a note of how much is missing."""
    if text is None or len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out]\n{text[-half:]}"


def problems(runs: list[Run]) -> dict[str, Any]:
    """Collect the answers to the evaluation's problems, by each run at its first and its last evaluation of one suite.

    Returns:
        versions (label, position of the run, step), problems (task, index, question, expected, one answer per version), and a
        note on what is included.
    """
    versions: list[tuple[str, int, dict[str, Any]]] = []
    left_out = []
    for place, run in enumerate(runs):
        ends = run.evaluations[:1] + run.evaluations[1:][-1:]
        for evaluation in ends:
            label = f"{run.name}, step {evaluation['step']:,}" if len(runs) > 1 else f"step {evaluation['step']:,}"
            if versions and evaluation.get("suite") != versions[0][2].get("suite"):
                left_out.append(label)
            else:
                versions.append((label, place, evaluation))
    if not versions:
        return {"versions": [], "problems": [], "note": ""}
    by_version = [{(r["task"], r["index"]): r for r in e.get("rows", [])} for _, _, e in versions]
    questions = {key: texts for run in runs for key, texts in run.questions.items()}
    everything = [_problem(key, by_version, questions) for key in sorted(by_version[0])]
    kept = everything
    while len(kept) > 1 and sum(map(_size, kept)) > MOST_PROBLEM_CHARACTERS:
        kept = kept[::2]
    amount = f"All {len(kept):,}" if len(kept) == len(everything) else f"{len(kept):,} of {len(everything):,}"
    note = f"{amount} problems."
    if (drawn := versions[-1][2].get("samples", {}).get("samples", 1)) > 1:
        note += f" Of each problem's {drawn} samples the first is shown."
    if left_out:
        note += f" Left out, because they were evaluated on other problems: {'; '.join(left_out)}."
    return {
        "versions": [{"label": label, "run": place, "step": e["step"]} for label, place, e in versions],
        "problems": kept,
        "note": note,
    }


def _problem(key: tuple[str, int], by_version: list[dict[Any, Any]], questions: dict[Any, Any]) -> dict[str, Any]:
    answers = []
    for rows in by_version:
        row = rows.get(key)
        answers.append(row and [bounded(row["completion"]), _finite(row["exact"]), row["tokens"], row["truncated"]])
    question, expected = questions.get(key, (None, None))
    problem = {"task": key[0], "index": key[1], "question": bounded(question), "expected": bounded(expected)}
    return {**problem, "answers": answers}


def _size(problem: dict[str, Any]) -> int:
    return len(problem["question"] or "") + sum(len(answer[0]) for answer in problem["answers"] if answer)
