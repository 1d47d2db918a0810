"""List the jobs, the most informative first; at toy size a CPU does them all in a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS = ("device", "checkpoints", "steps", "decoding", "agreement", "peer", "learning")

GB = 10**9
"""Bytes of a gigabyte in a GPU's name: one sold with 4 GB has a few hundredths more, part of which a desktop takes."""

MODELS_ON_GPUS = (
    ("1.5B", 4),
    ("3B", 6),
    ("7B", 12),
    ("0.5B", 4),
    ("3B", 8),
    ("1.5B", 24),
    ("7B", 24),
    ("7B", 16),
    ("1.5B", 6),
)
"""Model, and the GPU's memory in GB."""


@dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        part: one of PARTS.
        name: name of its findings within the part; empty if it is the whole part.
        calls: module and function of gpu_benchmark.
        settings: its arguments; the runner adds `context_bytes` and `bandwidth`.
        least: approximate seconds that it needs; it is left out if fewer remain.
    """

    part: str
    name: str
    calls: tuple[str, str]
    settings: dict[str, Any]
    least: float = 0.0


def all_jobs(device: str, toy: bool, workdir: Path) -> list[Job]:
    """Every job, in order."""
    return _toy(device, workdir) if toy else _real(device, workdir)


def _real(device: str, workdir: Path) -> list[Job]:
    paths = {shape: str(workdir / shape) for shape in ("0.5B", "1.5B", "3B", "7B")}
    step = {"prompts": 8, "generations": 8, "prompt_tokens": [512, 512], "new_tokens": 512, "steps": 2}
    auto: dict[str, Any] = {"policy": {}, "sampling": {}, "model": {}}
    least = {"0.5B": 15.0, "1.5B": 20.0, "3B": 25.0, "7B": 45.0}

    def fits(shape: str, gigabytes: int) -> Job:
        settings = auto | {"path": paths[shape], "gpu_bytes": gigabytes * GB}
        return Job("steps", f"{shape} on {gigabytes} GB", ("steps", "train"), step | settings, least[shape])

    def decodes(shape: str) -> Job:
        settings = {"path": paths[shape], "prompts": 8, "generations": 8, "prompt_tokens": [64, 64], "new_tokens": 128}
        return Job("decoding", shape, ("decoding", "measure"), settings, least[shape])

    small = {"path": paths["1.5B"], "prompts": 8, "generations": 8, "prompt_tokens": [256, 256], "new_tokens": 256}
    small |= {"steps": 2, "gpu_bytes": None}
    agree = {"path": paths["1.5B"], "rows": 64, "prompt_tokens": [32, 64], "new_tokens": 128}
    jobs = [
        Job("device", "", ("device", "measure"), {"side": 8192, "copy_bytes": 4 * 2**30}),
        Job("checkpoints", "", ("checkpoints", "write"), {"shapes": paths}),
        Job("learning", "", ("learning", "train"), {"target": 0.85, "changes": {}}, 30.0),
        decodes("1.5B"),
        Job("agreement", "", ("decoding", "agree"), agree, 15.0),
        *(fits(shape, gigabytes) for shape, gigabytes in MODELS_ON_GPUS[:3]),
        Job("peer", "ours", ("steps", "train"), small | auto, 15.0),
        Job("peer", "trl", ("peer", "train"), small | {"rows": 16, "checkpointing": False}, 45.0),
        *(fits(shape, gigabytes) for shape, gigabytes in MODELS_ON_GPUS[3:]),
        decodes("7B"),
        decodes("3B"),
    ]
    return [_on(device, job) for job in jobs]


def _toy(device: str, workdir: Path) -> list[Job]:
    path = str(workdir / "toy")
    work = {"path": path, "prompts": 2, "generations": 2, "prompt_tokens": [12, 12], "new_tokens": 12}
    step = work | {"steps": 2, "sampling": {}, "model": {"token_budget": 256}}
    changes = {
        "max_steps": 3,
        "fixed_eval_steps": 1,
        "sampling": {"num_generations": 2, "max_new_tokens": 12},
        "data": {"prompts_per_step": 2, "eval_num_samples": 1, "num_workers": 0},
    }
    off = {"policy": {"gradient_checkpointing": "off"}, "gpu_bytes": None}
    jobs = [
        Job("device", "", ("device", "measure"), {"side": 64, "copy_bytes": 2**16}),
        Job("checkpoints", "", ("checkpoints", "write"), {"shapes": {"toy": path}}),
        Job("learning", "", ("learning", "train"), {"target": 0.0, "changes": changes}),
        Job("decoding", "toy", ("decoding", "measure"), work),
        Job("agreement", "", ("decoding", "agree"), work | {"rows": 4}),
        Job("steps", "toy on 4 GB", ("steps", "train"), step | {"gpu_bytes": 4 * GB, "policy": {}}),
        Job("peer", "ours", ("steps", "train"), step | off),
        Job("peer", "trl", ("peer", "train"), step | off | {"rows": 2, "checkpointing": False}),
    ]
    return [_on(device, job) for job in jobs]


def _on(device: str, job: Job) -> Job:
    return Job(job.part, job.name, job.calls, job.settings | {"device": device}, job.least)
