"""Say in a sentence whether held-out accuracy has risen significantly, and summarise its latest training metrics."""

from __future__ import annotations

from rl_lightning.report.paired_differences import best_before_last, since_best, since_start
from rl_lightning.report.run_files import Run


def verdict(run: Run) -> dict[str, str]:
    """Return the answer in a few words, the sentence that explains it, and its tone: good, bad or undecided."""
    if not run.evaluations:
        return {"tone": "undecided", "word": "Not measured.", "text": "This run has no evaluation yet."}
    first, last = run.evaluations[0], run.evaluations[-1]
    now = last["overall"]
    answers = f"Of {now['n']:,} held-out problems it answers {now['accuracy']:.1%} exactly at step {last['step']:,}"
    if first is last:
        return {"tone": "undecided", "word": "Not known yet.", "text": f"{answers}; there is no second evaluation."}
    gain = since_start(run)
    if gain is None:
        text = f"{answers}. The problems differ from those of step {first['step']:,}, so the two cannot be compared."
        text += "".join(f" {what[0].upper()}{what[1:]}." for what in last.get("suite_change", {}).get("what", []))
        return {"tone": "undecided", "word": "Cannot be said.", "text": text}
    change = "a gain" if gain["mean"] >= 0 else "a loss"
    text = (
        f"{answers}, and {first['overall']['accuracy']:.1%} at step {first['step']:,}: {change} of "
        f"{100 * abs(gain['mean']):.1f} points, 95% interval {points(gain['low'])} to {points(gain['high'])}."
    )
    if gain["low"] > 0:
        return {
            "tone": "good",
            "word": "Yes, it is getting better.",
            "text": f"{text} That is more than chance.{_caveats(run)}",
        }
    if gain["high"] < 0:
        return {
            "tone": "bad",
            "word": "No, it is getting worse.",
            "text": f"{text} That is more than chance.{_caveats(run)}",
        }
    return {"tone": "undecided", "word": "No clear change.", "text": f"{text} That may be chance.{_caveats(run)}"}


def _caveats(run: Run) -> str:
    """Say what the overall difference hides: tasks that got worse, and a better evaluation in between."""
    by_task = {task: since_start(run, task) for task in sorted(run.evaluations[-1]["tasks"])}
    worse = [task for task, gain in by_task.items() if gain and gain["high"] < 0] if len(by_task) > 1 else []
    text = f" It got worse at {', '.join(worse)}." if worse else ""
    best, lost = best_before_last(run), since_best(run)
    if best and lost and lost["high"] < 0:
        interval = f"{points(-lost['high'])} to {points(-lost['low'])}"
        text += (
            f" It was better at step {best['step']:,}, by {-100 * lost['mean']:.1f} points, 95% interval {interval}."
        )
    return text


def points(value: float) -> str:
    """Format a difference of shares in percentage points, with its sign (U+2212 for minus)."""
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def training_summary(run: Run) -> list[tuple[str, str]]:
    """Return label and value of the main training metrics, as means of the last 20 rollouts."""
    recent = (
        ("Reward", "reward/mean", "{:.2f}"),
        ("Right samples", "reward/exact", "{:.0%}"),
        ("Groups with reward variance", "groups/with_variance", "{:.0%}"),
        ("Truncated", "completion/truncated", "{:.0%}"),
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
        seconds = sum(part or 0 for part in parts) / run.steps_per_rollout
        found.append(("Time per optimizer step", f"{seconds:.2g} s"))
    if (ranks := run.recent("time/ranks", 1)) is not None:
        found += [("Ranks", f"{ranks:.0f}"), ("Ranks wait", f"{run.recent('time/ranks_waiting'):.0%} of the time")]
    if run.evaluations and "share_of_run" in run.evaluations[-1]:
        found.append(("Time evaluating", f"{run.evaluations[-1]['share_of_run']:.0%}"))
    return found
