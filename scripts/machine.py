"""What figures are measured on: the machine, and what a process of its own is given of it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "lightning", "trl", "rl_lightning")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on and with."""
    return {
        "cpu": _processor(),
        "cores": cores(),
        "threads": threads,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def in_words(machine: dict[str, Any]) -> str:
    """The same as a sentence under a table."""
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items() if number)
    return (
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores; Python {machine['python']}, {packages}."
    )


def environment(threads: int) -> dict[str, str]:
    """Of a measured process: no network, so many threads, and the scripts' own packages at hand."""
    scripts = Path(__file__).parent
    path = os.pathsep.join([str(scripts), str(scripts.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line for line in lines if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
