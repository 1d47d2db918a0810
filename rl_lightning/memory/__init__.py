"""Memory planning: predict peak memory from a model's config alone, and choose the largest settings that fit on a device.

May import `policy` (the sizes of its tiles and micro-batches) and the layers below. The memory of rollouts is predicted by their
engine, through the protocol `EngineMemory`. Main exports: `make_plan`, the plain data that it takes, and `MemoryLimits`, the
settings that are halved if the device runs out of memory despite the plan.
"""

from rl_lightning.memory.breakdown import (
    EngineMemory,
    HeldModel,
    LossTerms,
    MemoryBreakdown,
    PlannedSettings,
    RolloutMemory,
    StepShape,
)
from rl_lightning.memory.device import Device, device_memory, gpu_of_size, memory_of_cards
from rl_lightning.memory.limits import Limit, MemoryLimits, halve_on_oom
from rl_lightning.memory.plan import Plan, make_plan
from rl_lightning.memory.table import table

__all__ = [
    "Device",
    "EngineMemory",
    "HeldModel",
    "Limit",
    "LossTerms",
    "MemoryBreakdown",
    "MemoryLimits",
    "Plan",
    "PlannedSettings",
    "RolloutMemory",
    "StepShape",
    "device_memory",
    "gpu_of_size",
    "halve_on_oom",
    "make_plan",
    "memory_of_cards",
    "table",
]
