"""Checks that a model's answer must pass before the task's own scorer sees it: they refuse what no right answer can contain.

Others use `refuse_answer` alone. The rules, one file for each family of tasks, take time linear in the answer, never raise, and
never evaluate text; docs/scoring.md says what each is for. They import nothing of the package but each other.
"""

from rl_lightning.environments.reasoning_gym.answer_checks.checks import RULES, refuse_answer

__all__ = ["RULES", "refuse_answer"]
