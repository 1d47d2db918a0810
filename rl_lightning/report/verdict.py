"""Is it getting better, by more than luck? One sentence a run, and the figures beside it."""

from __future__ import annotations

from typing import Any

from rl_lightning.report.intervals import mcnemar, paired_interval
from rl_lightning.report.run_files import Run

Figures = dict[str, Any]


def gain_between(first: Figures, last: Figures, task: str | None = None) -> Figures | None:
    """The paired difference of two evaluations' accuracy on the problems of one suite.

    Args:
        first: as in `eval_step_N.json`.
        last: the same, later or of another run.
        task: of one task only.

    Returns:
        n, mean, low, high, p, better and worse (problems that changed); None where the suites differ, or nothing is left.
    """
    if first.get("suite") != last.get("suite"):
        return None
    before = {(row["task"], row["index"]): row["exact"] for row in first.get("rows", [])}
    rows = [
        row for row in last.get("rows", []) if task in (None, row["task"]) and (row["task"], row["index"]) in before
    ]
    if not rows:
        return None
    old = [float(before[row["task"], row["index"]]) for row in rows]
    new = [float(row["exact"]) for row in rows]
    mean, low, high = paired_interval(old, new)
    better = sum(b > a for a, b in zip(old, new, strict=True))
    worse = sum(b < a for a, b in zip(old, new, strict=True))
    figures = {"n": len(rows), "mean": mean, "low": low, "high": high, "better": better, "worse": worse}
    return {**figures, "p": mcnemar(old, new)}


def since_start(first: Figures, last: Figures, task: str | None = None) -> Figures | None:
    """`gain_between` of a run's first and last evaluation; mean, low, high and p as the run itself recorded them, where it did."""
    if first is last or first.get("suite") != last.get("suite"):
        return None
    recorded = (last["overall"] if task is None else last["tasks"][task]).get("gain") or {}
    return {**(gain_between(first, last, task) or {}), **recorded} or None


def verdict(run: Run) -> dict[str, str]:
    """The answer in a word, the sentence that says it, and what mood to show it in: good, bad, open."""
    if not run.evaluations:
        return {"mood": "open", "word": "Not measured.", "text": "This run has no evaluation yet."}
    first, last = run.evaluations[0], run.evaluations[-1]
    now = last["overall"]
    answers = f"Of {now['n']:,} held-out problems it answers {now['accuracy']:.1%} exactly at step {last['step']:,}"
    if first is last:
        return {"mood": "open", "word": "Not known yet.", "text": f"{answers}; there is no second evaluation."}
    gain = since_start(first, last)
    if gain is None:
        text = f"{answers}. The problems differ from those of step {first['step']:,}, so the two cannot be compared."
        return {"mood": "open", "word": "Cannot be said.", "text": text}
    change = "a gain" if gain["mean"] >= 0 else "a loss"
    text = (
        f"{answers}, and {first['overall']['accuracy']:.1%} at step {first['step']:,}: {change} of "
        f"{100 * abs(gain['mean']):.1f} points, 95% interval {points(gain['low'])} to {points(gain['high'])}."
    )
    if gain["low"] > 0:
        return {
            "mood": "good",
            "word": "Yes, it is getting better.",
            "text": f"{text} That is more than luck.{_but(run)}",
        }
    if gain["high"] < 0:
        return {"mood": "bad", "word": "No, it is getting worse.", "text": f"{text} That is more than luck.{_but(run)}"}
    return {"mood": "open", "word": "Not shown.", "text": f"{text} That may be luck.{_but(run)}"}


def _but(run: Run) -> str:
    """What the difference of the whole hides: tasks that got worse, and a better evaluation on the way."""
    first, last = run.evaluations[0], run.evaluations[-1]
    gains = {task: since_start(first, last, task) for task in sorted(last["tasks"])}
    worse = [task for task, gain in gains.items() if gain and gain["high"] < 0] if len(gains) > 1 else []
    text = f" It got worse at {', '.join(worse)}." if worse else ""
    best = next((e for e in run.evaluations if e["step"] == best_before_last(run)), None)
    lost = best and gain_between(best, last)
    if best and lost and lost["high"] < 0:
        interval = f"{points(-lost['high'])} to {points(-lost['low'])}"
        text += (
            f" It was better at step {best['step']:,}, by {-100 * lost['mean']:.1f} points, 95% interval {interval}."
        )
    return text


def points(value: float) -> str:
    """A difference of shares in percentage points, signed, with a true minus sign."""
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def best_before_last(run: Run) -> int | None:
    """The step of the best evaluation, the later of equals; None where that is the last one."""
    best = max(run.evaluations, key=lambda e: (e["overall"]["accuracy"], e["step"]), default=None)
    return best["step"] if best and best is not run.evaluations[-1] else None


def paired_table(run: Run) -> list[Figures]:
    """The first evaluation against the last: all problems, then each task; and the last against the best, where it is another."""
    if not run.evaluations:
        return []
    first, last = run.evaluations[0], run.evaluations[-1]
    best = next((e for e in run.evaluations if e["step"] == best_before_last(run)), None)
    rows = []
    for task in [None, *sorted(last["tasks"])]:
        now = last["overall"] if task is None else last["tasks"][task]
        before = first["overall"] if task is None else first["tasks"].get(task)
        row = _row(task or "all problems", before, now, since_start(first, last, task))
        rows.append({**row, "to_best": best and gain_between(best, last, task)})
    return rows


def _row(label: str, before: Figures | None, now: Figures, gain: Figures | None) -> Figures:
    return {
        "label": label,
        "n": now["n"],
        "before": before["accuracy"] if before else None,
        "now": now["accuracy"],
        "gain": gain,
        "constant": now.get("constant"),
        "truncated": now.get("truncated"),
        "tokens": now.get("mean_tokens"),
    }


def against_each_other(runs: list[Run]) -> list[Figures]:
    """The last evaluation of every later run against the first run's, where both were asked the same."""
    base = runs[0]
    rows = []
    for run in runs[1:]:
        if not (base.evaluations and run.evaluations):
            continue
        old, new = base.evaluations[-1], run.evaluations[-1]
        for task in [None, *sorted(set(old["tasks"]) & set(new["tasks"]))]:
            gain = gain_between(old, new, task)
            one, other = (e["overall"] if task is None else e["tasks"][task] for e in (old, new))
            rows.append({**_row(task or "all problems", one, other, gain), "run": run.name})
    return rows


def key_figures(run: Run) -> list[tuple[str, str]]:
    """Label and value of what training looks like now: means of the last 20 logged steps."""
    recent = (
        ("Reward", "reward/mean", "{:.2f}"),
        ("Right samples", "reward/exact", "{:.0%}"),
        ("Live groups", "groups/diverse", "{:.0%}"),
        ("Cut off", "completion/truncated", "{:.0%}"),
        ("Length", "completion/tokens", "{:.0f} tokens"),
        ("Entropy", "policy/entropy", "{:.3g} nats"),
    )
    found = []
    for label, metric, form in recent:
        value = run.recent(metric)
        if value is not None:
            found.append((label, form.format(value)))
    parts = [run.recent(f"time/{part}") for part in ("sample", "score", "train")]
    if any(part is not None for part in parts):
        found.append(("A step takes", f"{sum(part or 0 for part in parts):.2g} s"))
    return found
