"""The figures of evaluated problems: shares with their errors, and paired differences to earlier evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from rl_lightning.evaluation.past import Evaluation, Key, Row
from rl_lightning.statistics import majority_at_k, paired_difference, pass_at_k, share_interval, sign_flip_p
from rl_lightning.types import Problem, Rollout, Score

_NORMAL = 2 * 1.96
"""Standard errors in the width of a 95% interval."""


def result_rows(problems: Sequence[Problem], rollout: Rollout, scores: Sequence[Score]) -> list[Row]:
    """One row a problem, sorted by task and index: with several samples their means, the first sample's completion, and all
    of them under `samples`.

    Args:
        problems: B.
        rollout: B * k completions.
        scores: of each.
    """
    k = rollout.group_size
    drawn = [
        {
            "exact": score.exact,
            "partial": score.partial,
            "tokens": tokens,
            "truncated": not finished,
            "answer": score.answer,
            "completion": text,
        }
        for score, tokens, finished, text in zip(
            scores, rollout.lengths.tolist(), rollout.finished.tolist(), rollout.texts, strict=True
        )
    ]
    rows = []
    for number, problem in enumerate(problems):
        mine = drawn[number * k : (number + 1) * k]
        row: Row = {"task": problem.task, "index": problem.index, **mine[0]}
        if k > 1:
            row |= {
                name: fmean(sample[name] for sample in mine) for name in ("exact", "partial", "tokens", "truncated")
            }
            row["samples"] = mine
        rows.append(row)
    return sorted(rows, key=lambda row: (row["task"], row["index"]))


def figures(rows: Sequence[Row], first: Evaluation | None = None, best: Evaluation | None = None) -> dict[str, Any]:
    """The figures of some rows of an evaluation; shares and scores in [0, 1], lengths in tokens.

    Args:
        rows: at least one.
        first: the evaluation at step 0, of the same suite.
        best: the best of the earlier ones, likewise.

    Returns:
        n, accuracy with its 95% interval (low, high) and standard_error (the interval's width by that of a normal one: 0
        right of 20 is not certain), mean_score, mean_tokens, truncated; with several samples pass_at_k and majority_at_k; and
        where there is something to compare with gain and gain_score, gain_best and gain_score_best.
    """
    tasks = [row["task"] for row in rows]
    low, high = (float(end[0]) for end in share_interval(np.array([[row["exact"] for row in rows]]), tasks))
    found: dict[str, Any] = {
        "n": len(rows),
        "accuracy": fmean(row["exact"] for row in rows),
        "low": low,
        "high": high,
        "standard_error": (high - low) / _NORMAL,
        "mean_score": fmean(row["partial"] for row in rows),
        "mean_tokens": fmean(row["tokens"] for row in rows),
        "truncated": fmean(row["truncated"] for row in rows),
    }
    if "samples" in rows[0]:
        found |= _of_samples(rows)
    if first is not None:
        found["gain"], found["gain_score"] = gains(first.rows, rows)
    if best is not None:
        again = best is first  # which need not be worked out again
        pair = (found["gain"], found["gain_score"]) if again else gains(best.rows, rows)
        found["gain_best"], found["gain_score_best"] = pair
    return found


def gains(before: Mapping[Key, Row], rows: Sequence[Row]) -> tuple[dict[str, float], dict[str, float]]:
    """The paired differences of accuracy, with McNemar's exact p, and of the score.

    Args:
        before: the earlier evaluation's rows, of the same suite.
        rows: now.
    """
    tasks = [row["task"] for row in rows]
    old = [before[row["task"], row["index"]] for row in rows]
    exact, partial = ([(a[name], b[name]) for a, b in zip(old, rows, strict=True)] for name in ("exact", "partial"))
    accuracy = asdict(paired_difference([a for a, _ in exact], [b for _, b in exact], tasks))
    same = all(e == p for e, p in zip(exact, partial, strict=True))
    score = accuracy if same else asdict(paired_difference([a for a, _ in partial], [b for _, b in partial], tasks))
    k = len(rows[0].get("samples", [0]))
    return {**accuracy, "p": sign_flip_p([round(k * (b - a)) for a, b in exact])}, dict(score)


def _of_samples(rows: Sequence[Row]) -> dict[str, Any]:
    """pass@k at 1, 2, 4, … and all samples, and maj@k at all."""
    drawn = len(rows[0]["samples"])
    right = [round(sum(sample["exact"] for sample in row["samples"])) for row in rows]
    ks = sorted({drawn, *(2**i for i in range(drawn.bit_length()) if 2**i <= drawn)})
    votes = [majority_at_k([s["answer"] for s in row["samples"]], [s["exact"] for s in row["samples"]]) for row in rows]
    return {
        "pass_at_k": {str(k): fmean(pass_at_k(drawn, count, k) for count in right) for k in ks},
        "majority_at_k": fmean(votes),
    }
