"""Describe the machine that measurements are made on, and give a measured process its environment variables."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "lightning", "trl", "rl_lightning")


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_info(threads: int) -> dict[str, Any]:
    """Processor, cores, threads, and versions of Python and the packages that a measurement depends on."""
    return {
        "cpu": _processor(),
        "cores": available_cores(),
        "threads": threads,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def describe_machine(info: dict[str, Any]) -> str:
    """`machine_info` as a sentence under a table."""
    packages = ", ".join(f"{name} {number}" for name, number in info["packages"].items() if number)
    return f"{info['cpu']}, {info['threads']} of {info['cores']} cores; Python {info['python']}, {packages}."


def process_environment(threads: int) -> dict[str, str]:
    """Environment variables of a measured process: no network, that many threads, and the scripts' own packages importable."""
    scripts = Path(__file__).parent
    path = os.pathsep.join([str(scripts), str(scripts.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line for line in lines if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
