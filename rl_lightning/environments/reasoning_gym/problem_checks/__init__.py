"""Checks that a problem of reasoning-gym must pass before anybody is asked it: its answer is right, and the only one where the
task's scorer takes no other.

Others use `refuse_problem`, and the list of tasks with such checks. The rules, one file for each family of tasks, solve a problem
from its question, and import nothing of the package but each other.
"""

from rl_lightning.environments.reasoning_gym.problem_checks.checks import PROBLEM_RULES, refuse_problem

__all__ = ["PROBLEM_RULES", "refuse_problem"]
