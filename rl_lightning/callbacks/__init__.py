"""Lightning callbacks: the fixed evaluation, group statistics, checkpoints, memory, the panel, what a run leaves."""

from rl_lightning.callbacks.adapter_checkpoint import AdapterCheckpoint
from rl_lightning.callbacks.curriculum_log import CurriculumLog
from rl_lightning.callbacks.fixed_eval import FixedEval
from rl_lightning.callbacks.group_variance import GroupVariance
from rl_lightning.callbacks.learning_curve import LearningCurve
from rl_lightning.callbacks.live_panel import LivePanel
from rl_lightning.callbacks.memory_plan import MemoryPlan
from rl_lightning.callbacks.rollout_log import RolloutLog
from rl_lightning.callbacks.rollout_table import RolloutTable
from rl_lightning.callbacks.run_directory import RunDirectory
from rl_lightning.callbacks.stall_watch import StallWatch
from rl_lightning.callbacks.stop_at_signal import StopAtSignal

__all__ = [
    "AdapterCheckpoint",
    "CurriculumLog",
    "FixedEval",
    "GroupVariance",
    "LearningCurve",
    "LivePanel",
    "MemoryPlan",
    "RolloutLog",
    "RolloutTable",
    "RunDirectory",
    "StallWatch",
    "StopAtSignal",
]
