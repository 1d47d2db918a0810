"""Metrics of evaluated problems: accuracies with intervals, and paired differences to earlier evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from rl_lightning.evaluation.past_evaluations import Evaluation, Key, Row
from rl_lightning.statistics import majority_at_k, paired_difference, pass_at_k, share_interval, sign_flip_p
from rl_lightning.types import Problem, Rollout, Score

_WIDTH_IN_STANDARD_ERRORS = 2 * 1.96
"""Width of a normal 95% interval, in standard errors."""


def result_rows(problems: Sequence[Problem], rollout: Rollout, scores: Sequence[Score]) -> list[Row]:
    """Make one row per problem, sorted by task and index.

    With several samples per problem a row has their means, the first sample's completion, and all of them under `samples`.

    Args:
        problems: B problems.
        rollout: B * k completions.
        scores: B * k scores, one per completion.
    """
    k = rollout.group_size
    samples = [
        {
            "exact": score.exact,
            "partial": score.partial,
            "tokens": tokens,
            "truncated": truncated,
            "answer": score.answer,
            "completion": text,
            **({"not_finite": True} if not_finite else {}),
        }
        for score, tokens, truncated, not_finite, text in zip(
            scores,
            rollout.lengths.tolist(),
            rollout.truncated.tolist(),
            rollout.not_finite.tolist(),
            rollout.texts,
            strict=True,
        )
    ]
    rows = []
    for number, problem in enumerate(problems):
        own = samples[number * k : (number + 1) * k]
        row: Row = {"task": problem.task, "index": problem.index, **own[0]}
        if k > 1:
            row |= {name: fmean(sample[name] for sample in own) for name in ("exact", "partial", "tokens", "truncated")}
            row["samples"] = own
            if any("not_finite" in sample for sample in own):
                row["not_finite"] = True
        rows.append(row)
    return sorted(rows, key=lambda row: (row["task"], row["index"]))


def compute_metrics(
    rows: Sequence[Row], first: Evaluation | None = None, best: Evaluation | None = None
) -> dict[str, Any]:
    """Compute the metrics of some rows of an evaluation; accuracies and scores in [0, 1], lengths in tokens.

    Args:
        rows: the rows, at least one.
        first: the evaluation at step 0, of the same suite.
        best: the best of the earlier evaluations, likewise.

    Returns:
        n; accuracy with its 95% interval (low, high) and its standard_error (the interval's width divided by that of a normal
        interval of standard error 1, so that it is not 0 for 0 right of 20); mean_score, mean_tokens, truncated; with several
        samples pass_at_k and majority_at_k; with `first` gain and gain_score, with `best` gain_best and gain_score_best.
    """
    tasks = [row["task"] for row in rows]
    low, high = (float(end[0]) for end in share_interval(np.array([[row["exact"] for row in rows]]), tasks))
    found: dict[str, Any] = {
        "n": len(rows),
        "accuracy": fmean(row["exact"] for row in rows),
        "low": low,
        "high": high,
        "standard_error": (high - low) / _WIDTH_IN_STANDARD_ERRORS,
        "mean_score": fmean(row["partial"] for row in rows),
        "mean_tokens": fmean(row["tokens"] for row in rows),
        "truncated": fmean(row["truncated"] for row in rows),
    }
    if "samples" in rows[0]:
        found |= _sample_metrics(rows)
    if first is not None:
        found["gain"], found["gain_score"] = paired_differences(first.rows, rows)
    if best is not None:
        computed = best is first  # the bootstrap is the expensive part of an evaluation
        pair = (found["gain"], found["gain_score"]) if computed else paired_differences(best.rows, rows)
        found["gain_best"], found["gain_score_best"] = pair
    return found


def paired_differences(before: Mapping[Key, Row], rows: Sequence[Row]) -> tuple[dict[str, float], dict[str, float]]:
    """Compute the paired difference of accuracy, with McNemar's exact p, and that of the score.

    Args:
        before: the rows of an earlier evaluation of the same suite.
        rows: the rows now.

    Returns:
        mean, low, high and p of the accuracy; mean, low and high of the score.
    """
    tasks = [row["task"] for row in rows]
    old = [before[row["task"], row["index"]] for row in rows]
    exact, partial = ([(a[name], b[name]) for a, b in zip(old, rows, strict=True)] for name in ("exact", "partial"))
    accuracy = asdict(paired_difference([a for a, _ in exact], [b for _, b in exact], tasks))
    same = all(e == p for e, p in zip(exact, partial, strict=True))
    score = accuracy if same else asdict(paired_difference([a for a, _ in partial], [b for _, b in partial], tasks))
    k = len(rows[0].get("samples", [0]))
    return {**accuracy, "p": sign_flip_p([round(k * (b - a)) for a, b in exact])}, dict(score)


def _sample_metrics(rows: Sequence[Row]) -> dict[str, Any]:
    """Compute pass@k at 1, 2, 4, … and all samples, and maj@k at all of them."""
    samples = len(rows[0]["samples"])
    right = [round(sum(sample["exact"] for sample in row["samples"])) for row in rows]
    ks = sorted({samples, *(2**i for i in range(samples.bit_length()) if 2**i <= samples)})
    votes = [majority_at_k([s["answer"] for s in row["samples"]], [s["exact"] for s in row["samples"]]) for row in rows]
    return {
        "pass_at_k": {str(k): fmean(pass_at_k(samples, count, k) for count in right) for k in ks},
        "majority_at_k": fmean(votes),
    }
