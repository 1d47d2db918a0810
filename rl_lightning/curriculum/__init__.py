"""Curriculum: each task's difficulty level follows the policy's accuracy.

The rule that changes a level, the schedule that says from which slot of the prompt stream on it holds, and the record of the
accuracy by task and level. Plain numbers: may import only `types`; `environments` generates the problems of a level. Main exports:
`CurriculumScheduler` with its settings, `Curriculum`; the stream draws each slot's task and level from the `LevelSchedule`.
"""

from rl_lightning.curriculum.config import Curriculum
from rl_lightning.curriculum.record import SuccessRecord
from rl_lightning.curriculum.schedule import LevelSchedule, draw_task
from rl_lightning.curriculum.scheduler import CurriculumScheduler

__all__ = ["Curriculum", "CurriculumScheduler", "LevelSchedule", "SuccessRecord", "draw_task"]
