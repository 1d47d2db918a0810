"""What one side reports of its steps and its memory."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Step:
    """One optimizer step.

    Attributes:
        seconds: from the end of the step before to the end of this one.
        sample: of these, sampling the completions, texts included.
        train: of these, the update.
        sampled_tokens: completion tokens, end tokens included.
        trained_tokens: completion tokens that took part in the update.
        longest: tokens of the longest completion.
    """

    seconds: float
    sample: float
    train: float
    sampled_tokens: int
    trained_tokens: int
    longest: int


@dataclass
class Report:
    """One process's measurements; bytes.

    Attributes:
        before_load: resident with every import made and no model.
        loaded: resident with model, adapters and optimizer, before the first step.
        parameters: bytes of the model's and the adapters' weights, each counted once.
        peak: the most that was resident from there to the end.
    """

    side: str
    steps: list[Step] = field(default_factory=list)
    before_load: int = 0
    loaded: int = 0
    parameters: int = 0
    peak: int = 0

    def model_is_loaded(self, parameters: int) -> None:
        """Note what is resident and start the peak anew, so that what loading took for a moment does not count."""
        settle()
        self.loaded, self.parameters = resident(), parameters
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)

    def ended(self) -> dict[str, Any]:
        """For JSON."""
        self.peak = resident("VmHWM")
        return asdict(self)


def settle() -> None:
    """Give freed memory back, so that what is resident is what is in use: alike on both sides."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident(name: str = "VmRSS") -> int:
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
