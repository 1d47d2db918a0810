"""Measure the device: its clock, its memory counters, and how fast it multiplies and copies; also limit its memory."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from gpu_benchmark import Report


def device_of(name: str) -> torch.device:
    """The device of that name with an index, which bitsandbytes and the allocator ask for."""
    return torch.device("cuda", 0) if name == "cuda" else torch.device(name)


def now(device: torch.device) -> float:
    """The time in seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def cap(device: torch.device, allowed: float) -> None:
    """Limit this process's tensors to that many bytes; to be called before the first one is created."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), device)


def start_peak(device: torch.device) -> None:
    """Count the peak from here on."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> dict[str, int | None]:
    """Bytes since `start_peak`: of tensors, and of what the allocator held for them."""
    if device.type != "cuda":
        return {"allocated": None, "reserved": None}
    torch.cuda.synchronize(device)
    return {
        "allocated": torch.cuda.max_memory_allocated(device),
        "reserved": torch.cuda.max_memory_reserved(device),
    }


def measure(job: dict[str, Any], report: Report) -> None:
    """Report what the device is and the best rates that it reaches.

    Args:
        job: `device`; `side`, the size of the square matrices; `copy_bytes`.
    """
    device = device_of(job["device"])
    packages = ("torch", "transformers", "peft", "bitsandbytes", "lightning")
    report(versions={name: version(name) for name in packages}, python=platform.python_version())
    if device.type == "cuda":
        report(**_gpu(device))
    else:
        report(name=f"CPU ({platform.machine()})", total_bytes=None, context_bytes=0)
    dtype = torch.bfloat16
    side = job["side"]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    seconds = mean_seconds(device, lambda: torch.mm(a, b, out=out))
    report(matmul_tflops=round(2 * side**3 / seconds / 1e12, 6), matmul=f"bf16, {side} cubed")
    source = torch.zeros(job["copy_bytes"], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = mean_seconds(device, lambda: target.copy_(source))
    # A copy reads each byte and writes one.
    report(bandwidth_bytes_per_second=round(2 * job["copy_bytes"] / seconds))


def _gpu(device: torch.device) -> dict[str, Any]:
    torch.empty(1, device=device)
    free, total = torch.cuda.mem_get_info(device)
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": list(torch.cuda.get_device_capability(device)),
        "multiprocessors": properties.multi_processor_count,
        "total_bytes": properties.total_memory,
        # Nothing else runs on the GPU while this does: what is taken and is no tensor is CUDA's own.
        "context_bytes": total - free - torch.cuda.memory_reserved(device),
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def mean_seconds(device: torch.device, work: Callable[[], Any], rounds: int = 10) -> float:
    """Mean of `rounds` in a row, after three that are not counted."""
    for _ in range(3):
        work()
    began = now(device)
    for _ in range(rounds):
        work()
    return (now(device) - began) / rounds
