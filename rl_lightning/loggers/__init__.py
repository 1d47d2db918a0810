"""A run's own files of metrics and rollouts, readable at any moment and resumable after a kill.

May import `types` and `checkpointing` (atomic files), Lightning's logger interface and pyarrow. Main exports: `MetricsCSV`, the
logger that writes metrics.csv, and from `rollout_files` the writer of `rollouts/`. docs/metrics.md and docs/rollouts.md describe
the columns.
"""

from rl_lightning.loggers.metrics_csv import MetricsCSV
from rl_lightning.loggers.rollout_files import SCHEMA, RolloutFiles, drop_steps_after

__all__ = ["SCHEMA", "MetricsCSV", "RolloutFiles", "drop_steps_after"]
