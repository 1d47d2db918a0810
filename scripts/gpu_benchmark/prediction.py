"""Record what the memory plan predicts, for comparison with what was measured."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rl_lightning.memory.plan import Plan


def prediction(plan: Plan) -> dict[str, Any]:
    """Bytes by phase and part, CUDA's own share included; whether that fits; and the settings that the plan has chosen.

    `tensors` is each phase's sum without CUDA's share: what torch's own count of a phase is to be compared with.
    """
    sums = {phase: sum(parts.values()) for phase, parts in plan.phases.items()}
    return {
        "device_bytes": plan.device.bytes,
        "fits": plan.fits,
        "settings": asdict(plan.settings),
        "tensors": {phase: round(total - plan.phases[phase]["context"]) for phase, total in sums.items()},
        "parts": {phase: {part: round(size) for part, size in parts.items()} for phase, parts in plan.phases.items()},
    }
