"""From the sides' reports to medians, ratios and the tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmark.limits import Machine, Tokens, least_seconds
from benchmark.work import Shape, Workload

WARM_UP_STEPS = 1
"""Of each process: workers start, caches and the allocator fill."""

Reports = Sequence[dict[str, Any]]


def counted(reports: Reports) -> list[dict[str, Any]]:
    """The steps that count: not the warm-up, nor the one whose tensors were accounted for."""
    return [
        step
        for report in reports
        for number, step in enumerate(report["steps"])
        if number >= WARM_UP_STEPS and number != report["account_step"]
    ]


def figures(reports: Reports) -> dict[str, float]:
    """Medians of one side over all counted steps of all rounds, and of memory over the rounds; seconds, tokens, bytes."""
    steps = counted(reports)
    above = [report["peak"] - report["before_load"] - report["parameters"] for report in reports]
    return {
        "step_seconds": median(s["seconds"] for s in steps),
        "sample_seconds": median(s["sample"] for s in steps),
        "train_seconds": median(s["train"] for s in steps),
        "rollout_tokens_per_second": median(s["sampled_tokens"] / s["sample"] for s in steps),
        "training_tokens_per_second": median(s["trained_tokens"] / s["train"] for s in steps),
        "peak_above_model": median(above),
        "tensors_above_step_start": max(report["tensors"] for report in reports),
        "workers": median(report["workers"] for report in reports),
        "mean_tokens": sum(s["sampled_tokens"] for s in steps) / len(steps),
        "longest": median(s["longest"] for s in steps),
        "shortest_step": min(s["seconds"] for s in steps),
        "longest_step": max(s["seconds"] for s in steps),
        "steps": len(steps),
    }


def ratios(ours: dict[str, float], peer: dict[str, float]) -> dict[str, float]:
    """How many times as good ours is: above 1 is faster, or smaller."""
    return {
        "step": peer["step_seconds"] / ours["step_seconds"],
        "rollout": ours["rollout_tokens_per_second"] / peer["rollout_tokens_per_second"],
        "training": ours["training_tokens_per_second"] / peer["training_tokens_per_second"],
        "memory": peer["peak_above_model"] / ours["peak_above_model"],
    }


def summary(workload: Workload, shape: Shape, sides: dict[str, Reports], rates: dict[str, Any]) -> dict[str, Any]:
    """One workload's results, as written to the JSON file."""
    by_side = {side: figures(reports) for side, reports in sides.items()}
    machine = Machine(max(rates["flops"].values()), max(rates["bandwidth"].values()))
    steps = counted(sides["ours"])
    prompt_tokens = sum(s["prompt_tokens"] for s in steps) / len(steps)
    ours = by_side["ours"]
    work = Tokens(workload.prompts, prompt_tokens, workload.rows, ours["mean_tokens"], ours["longest"])
    return {
        "workload": asdict(workload) | {"mean_tokens": min(workload.mean_tokens, workload.new_tokens)},
        "prompt_tokens": prompt_tokens / workload.prompts,
        "machine": rates,
        "least_seconds": least_seconds(shape, work, machine),
        **by_side,
        "ratios": ratios(ours, by_side["peer"]) if "peer" in by_side else None,
        "reports": {side: list(reports) for side, reports in sides.items()},
    }


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/performance.md."""
    lines = [
        "| workload | | step, s | rollout, tokens/s | training, tokens/s | peak above the model, GB | tensors, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        for side in ("ours", "peer"):
            if side in result:
                lines.append(_row(f"`{name}`", {"ours": "ours", "peer": "TRL"}[side], result[side]))
        least, tokens = result["least_seconds"], result["ours"]["mean_tokens"]
        cells = (sum(least.values()), tokens / least["sample"], tokens / least["train"])
        lines.append(f"| | limit | {cells[0]:.3g} | {cells[1]:,.0f} | {cells[2]:,.0f} | | |")
        if result["ratios"]:
            times = [f"**{result['ratios'][key]:.1f}×**" for key in ("step", "rollout", "training", "memory")]
            lines.append(f"| | TRL to ours | {' | '.join(times)} | |")
    return "\n".join(lines)


def _row(name: str, side: str, of: dict[str, float]) -> str:
    tensors = f"{of['tensors_above_step_start'] / 1e9:.2f}" if of["tensors_above_step_start"] else ""
    return (
        f"| {name} | {side} | {of['step_seconds']:.3g} ({of['shortest_step']:.3g} to {of['longest_step']:.3g}) | "
        f"{of['rollout_tokens_per_second']:,.0f} | {of['training_tokens_per_second']:,.0f} | "
        f"{of['peak_above_model'] / 1e9:.2f} | {tensors} |"
    )


def put_into(page: Path, section: str, text: str) -> None:
    """Replace what stands between `<!-- section -->` and `<!-- /section -->`.

    Raises:
        ValueError: the page has no such section.
    """
    before, start, rest = page.read_text(encoding="utf-8").partition(f"<!-- {section} -->\n")
    _, end, after = rest.partition(f"<!-- /{section} -->")
    if not (start and end):
        raise ValueError(f"{page} has no section {section}")
    page.write_text(f"{before}{start}{text}\n{end}{after}", encoding="utf-8")
