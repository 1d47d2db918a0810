"""Independent solvers of reasoning-gym's tasks: is the answer that upstream takes for right really so?

`python scripts/check_oracles.py` asks them about many problems. Each file has one idea; each solver reads the question, works by
another method than upstream where there is one, and returns what is wrong, or None. The solvers of tasks in which they found wrong
answers are needed for training, and so stand in the package: `environments/reasoning_gym/problem_checks`.
"""

from importlib import import_module
from pkgutil import iter_modules

from rl_lightning.environments.reasoning_gym.problem_checks import PROBLEM_RULES
from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle

_FILES = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]

ORACLES: dict[str, Oracle] = {
    **PROBLEM_RULES,
    **{task: oracle for file in _FILES for task, oracle in file.ORACLES.items()},
}

__all__ = ["ORACLES", "Item", "Oracle"]
