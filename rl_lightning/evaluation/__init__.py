"""The fixed evaluation: its problems, its metrics, and which evaluations may be compared.

Works on problems, rows and files; knows no trainer and no model. May import `types`, `checkpointing` (atomic files) and
`statistics`. Main exports: `make_suite` and `store_suite` record the problems and settings, `result_rows` and
`evaluation_result` make the JSON that docs/evaluation.md describes, `PastEvaluations` reads it.
"""

from rl_lightning.evaluation.conditions import Conditions, condition_differences
from rl_lightning.evaluation.constant_baseline import constant_answers
from rl_lightning.evaluation.eval_sampling import EvalSampling, problem_draws
from rl_lightning.evaluation.metrics import paired_differences, result_rows
from rl_lightning.evaluation.past_evaluations import PastEvaluations, Row, read_result
from rl_lightning.evaluation.result import evaluation_result, suite_change
from rl_lightning.evaluation.suite import Suite, curriculum_levels, differences, make_suite, store_suite, stored_suite

__all__ = [
    "Conditions",
    "EvalSampling",
    "PastEvaluations",
    "Row",
    "Suite",
    "condition_differences",
    "constant_answers",
    "curriculum_levels",
    "differences",
    "evaluation_result",
    "make_suite",
    "paired_differences",
    "problem_draws",
    "read_result",
    "result_rows",
    "store_suite",
    "stored_suite",
    "suite_change",
]
