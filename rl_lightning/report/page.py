"""Build the HTML page: a single file that fetches nothing, in which no text of a model can become markup or script."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rl_lightning.report import curves, samples, verdict
from rl_lightning.report.paired_differences import best_before_last
from rl_lightning.report.run_files import Run
from rl_lightning.report.tables import compare_runs, paired_table

OURS = '<meta name="generator" content="rl_lightning report">'
"""Marks a page of this program; it is near the beginning of the file."""
WEB = Path(__file__).parent / "web"
_SCRIPTS = (
    *("uplot/uPlot.iife.min.js", "dom.js", "charts.js", "answers.js", "browser.js"),
    *("rollouts.js", "problems.js", "page.js"),
)
_STYLES = ("uplot/uPlot.min.css", "page.css")


def page(runs: list[Run], watch: str | None = None) -> str:
    """Render the page as HTML.

    Args:
        runs: one, or several to compare.
        watch: identifies the state of the runs' files, if the page is served; the page then polls the state, and reloads when it
            has changed.
    """
    environment = Environment(
        loader=PackageLoader("rl_lightning.report", "web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"percent": _percent, "points": verdict.points, "p": _p_value, "whole": "{:,.0f}".format}
    charts = curves.page_charts(runs)
    problems = samples.problems(runs)
    rollouts = samples.rollouts(runs)
    return environment.get_template("page.html").render(
        runs=[_overview(run, place) for place, run in enumerate(runs)],
        several=len(runs) > 1,
        charts=charts,
        joined=any("low" in line for chart in charts["training"] for line in chart["lines"]),
        several_steps=_several_steps(runs),
        most_points=curves.MOST_POINTS,
        against=compare_runs(runs),
        differences=_differences(runs),
        rollout_notes=[(run["name"], run["note"]) for run in rollouts["runs"]],
        problems_note=problems["note"],
        problems_shown=len(problems["versions"]) > 1,
        data=_json({"charts": charts, "watch": watch}),
        rollouts=samples.packed(rollouts),
        problems=samples.packed(problems),
        scripts=[Markup(text) for text in _texts(_SCRIPTS)],
        style=Markup("".join(_texts(_STYLES))),
        policy=_content_policy(watch is not None),
        licence=Markup((WEB / "uplot" / "LICENSE").read_text(encoding="utf-8")),
        watched=watch is not None,
        ours=Markup(OURS),
        made=datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _overview(run: Run, place: int) -> dict[str, Any]:
    table, best = paired_table(run), best_before_last(run)
    return {
        "name": run.name,
        "path": str(run.path),
        "status": _status(run),
        "verdict": verdict.verdict(run),
        "summary": verdict.training_summary(run),
        "table": table,
        "best": best and best["step"],
        "several_samples": any(row["pass_at_k"] for row in table),
        "look": curves.look(place),
        "missing": run.missing,
        "constants": any(row["constant"] is not None for row in table),
        "compared": run.evaluations and [run.evaluations[0]["step"], run.evaluations[-1]["step"]],
        "warnings": run.warnings,
        "config": run.config,
    }


def _several_steps(runs: list[Run]) -> dict[int, list[str]]:
    """Map each number of optimizer steps per rollout above 1 to the names of the runs that make so many."""
    found: dict[int, list[str]] = {}
    for run in runs:
        if run.steps_per_rollout > 1:
            found.setdefault(run.steps_per_rollout, []).append(run.name)
    return found


def _status(run: Run) -> str:
    if run.results is not None:
        minutes = run.results["seconds"] / 60
        took = f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
        took = took if minutes >= 1 else f"{60 * minutes:.0f} s"
        return f"ended at step {run.results['step']:,} after {took}"
    return f"not ended; newest step {run.last_step:,}"


def _differences(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """Return the settings in which the runs' configurations differ, each with one value per run."""
    flat = [_flat(yaml.safe_load(run.config) if run.config else {}) for run in runs]
    names = sorted({name for settings in flat for name in settings})
    rows = [(name, [settings.get(name, "\u2014") for settings in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {
            k: v
            for key, part in value.items()
            for k, v in _flat(part, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: json.dumps(value, ensure_ascii=False, default=str)}


@cache
def _texts(names: tuple[str, ...]) -> list[str]:
    return [(WEB / name).read_text(encoding="utf-8") for name in names]


def _content_policy(watched: bool) -> str:
    """Return a policy that allows scripts and styles by their hashes and fetches nothing; a watched page may ask its own server."""
    scripts = " ".join(_hash(text) for text in _texts(_SCRIPTS))
    style = _hash("".join(_texts(_STYLES)))
    parts = [
        "default-src 'none'",
        "img-src data:",
        f"script-src {scripts}",
        f"style-src {style}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*parts, *(["connect-src 'self'"] if watched else [])])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Any) -> Markup:
    """Encode JSON so that it is safe inside a script element: no character can start markup or end a line of script."""
    # ASCII only, so that characters such as U+2028 are escaped.
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _percent(share: float | None) -> str:
    return "\u2014" if share is None else f"{100 * share:.1f}%"


def _p_value(p: float | None) -> str:
    return "\u2014" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
