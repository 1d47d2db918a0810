"""Lightning callbacks around training: evaluation, logs, checkpoints, diagnostics, progress display, and the run directory.

One public callback per file; each does one thing, and the algorithm runs without any of them. May import everything below `module`,
through its public interface: what a training step has made reaches a callback as a `StepRecord` (`training.StepCallback`). The
command line adds all of them (`cli/lightning_cli.py`); from Python they are passed to the Trainer, in any order.
"""

from rl_lightning.callbacks.adapter_checkpoint import AdapterCheckpoint
from rl_lightning.callbacks.curriculum_log import CurriculumLog
from rl_lightning.callbacks.diagnostics import Diagnostics
from rl_lightning.callbacks.fixed_eval import FixedEval
from rl_lightning.callbacks.group_variance import GroupVariance
from rl_lightning.callbacks.learning_curve import LearningCurve
from rl_lightning.callbacks.live_panel import LivePanel
from rl_lightning.callbacks.memory_plan import MemoryPlan
from rl_lightning.callbacks.push_to_hub import PushToHub
from rl_lightning.callbacks.rollout_log import RolloutLog
from rl_lightning.callbacks.rollout_table import RolloutTable
from rl_lightning.callbacks.run_directory import RunDirectory
from rl_lightning.callbacks.stop_at_signal import StopAtSignal

__all__ = [
    "AdapterCheckpoint",
    "CurriculumLog",
    "Diagnostics",
    "FixedEval",
    "GroupVariance",
    "LearningCurve",
    "LivePanel",
    "MemoryPlan",
    "PushToHub",
    "RolloutLog",
    "RolloutTable",
    "RunDirectory",
    "StopAtSignal",
]
