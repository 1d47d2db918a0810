"""Difficulty that follows the learner: what moves a task's level, from which slot on, and what is remembered. Plain numbers."""

from rl_lightning.curriculum.config import Curriculum
from rl_lightning.curriculum.course import Course
from rl_lightning.curriculum.plan import Plan
from rl_lightning.curriculum.record import SuccessRecord

__all__ = ["Course", "Curriculum", "Plan", "SuccessRecord"]
