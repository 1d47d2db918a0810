"""Processes that may hang, die or be killed without the trainer noticing more than a named failure."""

from rl_lightning.isolation.pool import LOST, GuardedPool

__all__ = ["LOST", "GuardedPool"]
