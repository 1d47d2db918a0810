"""Reduce the sides' reports to medians and ratios, and write the tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from machine import describe_machine

from benchmark.roofline import PeakRates, StepTokens, least_seconds
from benchmark.workloads import Shape, Workload

Reports = Sequence[dict[str, Any]]


def counted_steps(reports: Reports) -> list[dict[str, Any]]:
    """The steps that count: all except the warm-up, in which the tensors may have been accounted for."""
    return [step for report in reports for step in report["steps"][report["warm_up"] :]]


def medians(reports: Reports) -> dict[str, float]:
    """Medians of one side over all counted steps of all rounds, and of memory over the rounds; seconds, tokens, bytes."""
    steps = counted_steps(reports)
    above = [r["peak"] - r["before_load"] - r["parameters"] for r in reports if not r["account"]] or [0]
    return {
        "step_seconds": median(s["seconds"] for s in steps),
        "sample_seconds": median(s["sample"] for s in steps),
        "train_seconds": median(s["train"] for s in steps),
        "rollout_tokens_per_second": median(s["sampled_tokens"] / s["sample"] for s in steps),
        "training_tokens_per_second": median(s["trained_tokens"] / s["train"] for s in steps),
        "seconds_per_token": sum(s["seconds"] for s in steps) / sum(s["trained_tokens"] for s in steps),
        "peak_above_model": median(above),
        "tensors_above_step_start": max(report["tensors"] for report in reports),
        "predicted": max(report["predicted"] for report in reports),
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


def workload_summary(
    workload: Workload, shape: Shape, sides: Mapping[str, Reports], rates: dict[str, Any]
) -> dict[str, Any]:
    """One workload's results, as written to the JSON file."""
    by_side = {side: medians(reports) for side, reports in sides.items()}
    steps, ours = counted_steps(sides["ours"]), by_side["ours"]
    prompt_tokens = sum(s["prompt_tokens"] for s in steps) / len(steps)
    tokens = StepTokens(workload.prompts, prompt_tokens, workload.rows, ours["mean_tokens"], ours["longest"])
    peak = PeakRates(max(rates["flops"].values()), max(rates["bandwidth"].values()))
    result = {
        "workload": asdict(workload) | {"mean_tokens": min(workload.mean_tokens, workload.new_tokens)},
        "parameters": sides["ours"][0]["parameters"],
        "prompt_tokens": prompt_tokens / workload.prompts,
        **by_side,
        "rates": rates,
        "least_seconds": least_seconds(shape, tokens, peak),
        "reports": {side: list(reports) for side, reports in sides.items()},
    }
    if "peer" in by_side:
        result["ratios"] = ratios(ours, by_side["peer"])
    if "vllm" in by_side:
        result["ratios_vllm"] = ratios(ours, by_side["vllm"])
    return result


def learning_summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Time to the target: each side's median over the seeds, None if a seed did not reach it; ours as a share of the peer's."""
    by_side: dict[str, Any] = {}
    for side, mine in runs.items():
        reached = all(run["reached"] for run in mine)
        known = [name for name in _SECONDS if all(run[name] is not None for each in runs.values() for run in each)]
        by_side[side] = {name: median(run[name] for run in mine) for name in known} if reached else None
    both = all(by_side.values())
    shares = {name: by_side["ours"][name] / by_side["peer"][name] for name in by_side["ours"]} if both else None
    return {"medians": by_side, "ours_to_peer": shares, "runs": runs}


_SECONDS = ("training_seconds", "evaluation_seconds", "process_seconds")
_NAMES = {"ours": "ours", "peer": "TRL", "vllm": "ours on vLLM"}


def workload_table(results: dict[str, dict[str, Any]]) -> str:
    """The table of the workloads that all sides run."""
    lines = [
        "| workload | | step, s | rollout, tokens/s | training, tokens/s | peak above the model, GB | tensors, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        for side in (each for each in _NAMES if each in result):
            lines.append(_row(f"`{name}`", _NAMES[side], result[side]))
        least, tokens = result["least_seconds"], result["ours"]["mean_tokens"]
        cells = (sum(least.values()), tokens / least["sample"], tokens / least["train"])
        lines.append(f"| | limit | {cells[0]:.3g} | {cells[1]:,.0f} | {cells[2]:,.0f} | | |")
        for key, label, digits in (("ratios", "TRL to ours", 1), ("ratios_vllm", "vLLM to ours", 2)):
            if key in result:
                times = [f"**{result[key][part]:.{digits}f}×**" for part in ("step", "rollout", "training", "memory")]
                lines.append(f"| | {label} | {' | '.join(times)} | |")
    return "\n".join([*lines, "", *sorted({describe_machine(result["machine"]) for result in results.values()})])


def _row(name: str, side: str, values: dict[str, float]) -> str:
    return (
        f"| {name} | {side} | {values['step_seconds']:.3g} ({values['shortest_step']:.3g} to {values['longest_step']:.3g}) | "
        f"{values['rollout_tokens_per_second']:,.0f} | {values['training_tokens_per_second']:,.0f} | "
        f"{values['peak_above_model'] / 1e9:.2f} | {_tensors(values)} |"
    )


def _tensors(values: dict[str, float]) -> str:
    """GB, or nothing if tensors were not accounted for."""
    return f"{values['tensors_above_step_start'] / 1e9:.3f}" if values["tensors_above_step_start"] else ""


def scaling_table(results: dict[str, dict[str, Any]]) -> str:
    """The table of ours as the work grows, one result per point; in times the limit, as larger vocabularies mean more work."""
    lines = [
        "| | prompts × group | length | vocabulary | step, s | ms a useful token | times the limit | tensors, GB | "
        "predicted, GB | off by |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, point in results.items():
        workload, ours = point["workload"], point["ours"]
        cells = (
            name.removeprefix("scaling "),
            f"{workload['prompts']} × {workload['generations']}",
            str(workload["new_tokens"]),
            f"{workload['shape']['vocabulary']:,}",
            f"{ours['step_seconds']:.3g}",
            f"{1000 * ours['seconds_per_token']:.3g}",
            f"{ours['step_seconds'] / sum(point['least_seconds'].values()):.2f}",
            _tensors(ours),
            f"{ours['predicted'] / 1e9:.3f}",
            f"{ours['predicted'] / ours['tensors_above_step_start'] - 1:+.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *sorted({describe_machine(point["machine"]) for point in results.values()})])


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _share(value: float | None) -> str:
    return "" if value is None else f"**{value:.2f}**"


def learning_table(result: dict[str, Any]) -> str:
    """The table of how long each side trained, seed by seed, until it reached the target."""
    lines = [
        f"| `{result.get('config', 'quickstart')}`, seed | | steps | accuracy, before and after | training, s | evaluations, s | "
        "the whole process, s | at its peak, GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pair in zip(*result["runs"].values(), strict=True):
        for run in pair:
            first, last = run["evaluations"][0], run["evaluations"][-1]
            after = f"{last['accuracy']:.3f}" + ("" if run["reached"] else f", short of {run['target']:.3g}")
            lines.append(
                f"| {run['seed']} | {_NAMES[run['side']]} | {last['step']} | {first['accuracy']:.3f} to {after} | "
                f"{' | '.join(_number(run[name], '.1f') for name in _SECONDS)} | "
                + (f"{run['peak'] / 1e9:.1f} |" if run.get("peak") else "|")
            )
    if result["ours_to_peer"]:
        share = result["ours_to_peer"]
        lines.append(
            f"| medians | ours to TRL | | | **{share['training_seconds']:.2f}** | | {_share(share.get('process_seconds'))} | |"
        )
    return "\n".join([*lines, "", describe_machine(result["machine"])])
