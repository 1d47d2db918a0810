"""Measure one side's steps and memory, and report them as JSON.

Memory is what is resident beyond the weights themselves. The program's own part is what is resident after all imports and before
anything is loaded; weights are counted by their size, since one side maps them from the file and touches them later while the other
copies them. So a second copy of the model, optimizer state, caches, activations, logits and what the allocator keeps all count.
The kernel's peak (VmHWM) is reset when the model is loaded. `tensors` is the finer measure: the profiler's account of CPU
tensors in one step, above what was allocated at its start; it is the CPU equivalent of torch.cuda.max_memory_allocated.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmark.workloads import Workload


@dataclass
class StepReport:
    """One optimizer step.

    Attributes:
        seconds: from the end of the step before to the end of this one.
        sample: seconds of sampling the completions, including decoding to text.
        train: seconds of the update.
        sampled_tokens: completion tokens, EOS tokens included.
        trained_tokens: completion tokens that took part in the update.
        longest: tokens of the longest completion.
        prompt_tokens: tokens of the B prompts together.
    """

    seconds: float
    sample: float
    train: float
    sampled_tokens: int
    trained_tokens: int
    longest: int
    prompt_tokens: int


@dataclass
class SideReport:
    """One process's measurements; bytes.

    Attributes:
        side: ours or peer.
        warm_up: initial steps that do not count.
        account: whether the profiler accounts for the first step's tensors, which slows it down and itself takes memory.
        before_load: resident after all imports, without a model.
        loaded: resident with model, adapters and optimizer, before the first step.
        parameters: bytes of the model's and the adapters' weights, each counted once.
        peak: the most that was resident from there to the end; 0 where there was an account.
        tensors: the most that tensors took above the first step's start; 0 where there was no account.
        predicted: the same by the memory plan; 0 where there is none.
        workers: resident in this process's children at the end, shared pages divided among them.
    """

    side: str
    warm_up: int = 0
    account: bool = False
    steps: list[StepReport] = field(default_factory=list)
    before_load: int = 0
    loaded: int = 0
    parameters: int = 0
    peak: int = 0
    tensors: int = 0
    predicted: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        release_freed_memory()
        self.before_load = resident()
        self._profile: profile | None = None

    def model_loaded(self, parameters: int) -> None:
        """Note what is resident and restart the peak, so that what loading took temporarily does not count."""
        release_freed_memory()
        self.loaded, self.parameters = resident(), parameters
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)

    def begin_step(self) -> None:
        """To be called before each step."""
        if self.account and not self.steps:
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.start()

    def end_step(self, step: StepReport) -> None:
        """To be called after each step."""
        self.steps.append(step)
        self.workers = _workers()
        if self._profile is not None:
            self._profile.stop()
            self.tensors, self._profile = _peak_of(self._profile), None

    def ended(self) -> dict[str, Any]:
        """All measurements, for JSON."""
        self.peak = 0 if self.account else resident("VmHWM")
        return asdict(self)


def _peak_of(account: profile) -> int:
    events = account.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")  # type: ignore[union-attr]
    live = most = 0
    for _, change in changes:
        live += change
        most = max(most, live)
    return most


def release_freed_memory() -> None:
    """Give freed memory back to the system, so that what is resident is what is in use, on both sides."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident(name: str = "VmRSS") -> int:
    """Bytes of this process in memory, current (VmRSS) or peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _workers(pid: str = "self") -> int:
    """Bytes of all processes below this one."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            rollup = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:")) + _workers(child)
    return total


def main(run: Callable[..., dict[str, Any]]) -> None:
    """The command line of a side's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", type=json.loads, required=True, help="the workload's fields as JSON")
    parser.add_argument("--model", required=True, help="the model's directory")
    parser.add_argument("--steps", type=int, required=True, help="number of counted steps")
    parser.add_argument("--warm_up", type=int, required=True)
    parser.add_argument("--account", type=int, choices=(0, 1), default=0, help="account for the first step's tensors")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    workload = Workload.of(args.workload)
    result = run(workload, args.model, args.steps, args.seed, args.warm_up, bool(args.account))
    args.out.write_text(json.dumps(result), encoding="utf-8")
