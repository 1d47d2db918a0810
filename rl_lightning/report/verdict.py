"""Is it getting better, by more than luck? One sentence a run, and the figures beside it."""

from __future__ import annotations

from rl_lightning.report.gains import best_before_last, since_best, since_start
from rl_lightning.report.run_files import Run


def verdict(run: Run) -> dict[str, str]:
    """The answer in a word, the sentence that says it, and what mood to show it in: good, bad, open."""
    if not run.evaluations:
        return {"mood": "open", "word": "Not measured.", "text": "This run has no evaluation yet."}
    first, last = run.evaluations[0], run.evaluations[-1]
    now = last["overall"]
    answers = f"Of {now['n']:,} held-out problems it answers {now['accuracy']:.1%} exactly at step {last['step']:,}"
    if first is last:
        return {"mood": "open", "word": "Not known yet.", "text": f"{answers}; there is no second evaluation."}
    gain = since_start(run)
    if gain is None:
        text = f"{answers}. The problems differ from those of step {first['step']:,}, so the two cannot be compared."
        text += "".join(f" {what[0].upper()}{what[1:]}." for what in last.get("suite_change", {}).get("what", []))
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
    gains = {task: since_start(run, task) for task in sorted(run.evaluations[-1]["tasks"])}
    worse = [task for task, gain in gains.items() if gain and gain["high"] < 0] if len(gains) > 1 else []
    text = f" It got worse at {', '.join(worse)}." if worse else ""
    best, lost = best_before_last(run), since_best(run)
    if best and lost and lost["high"] < 0:
        interval = f"{points(-lost['high'])} to {points(-lost['low'])}"
        text += (
            f" It was better at step {best['step']:,}, by {-100 * lost['mean']:.1f} points, 95% interval {interval}."
        )
    return text


def points(value: float) -> str:
    """A difference of shares in percentage points, signed, with a true minus sign."""
    return f"{100 * value:+.1f}".replace("-", "\u2212")


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
    if run.evaluations and "share_of_run" in run.evaluations[-1]:
        found.append(("Time evaluating", f"{run.evaluations[-1]['share_of_run']:.0%}"))
    return found
