"""The fixed evaluation: its problems, its figures, and what may be compared with what. Rows and files; no trainer."""

from rl_lightning.evaluation.constants import constant_answers
from rl_lightning.evaluation.draws import Draws, draws_of
from rl_lightning.evaluation.figures import result_rows
from rl_lightning.evaluation.past import PastEvaluations
from rl_lightning.evaluation.result import evaluation_result, suite_change
from rl_lightning.evaluation.suite import Suite, make_suite, store_suite

__all__ = [
    "Draws",
    "PastEvaluations",
    "Suite",
    "constant_answers",
    "draws_of",
    "evaluation_result",
    "make_suite",
    "result_rows",
    "store_suite",
    "suite_change",
]
