"""How sure a figure is: shares, paired differences, several samples a problem, several runs. Pure functions of numbers.

Every method here was chosen by simulation; docs/evaluation.md has the coverages, tests/statistics holds them.
"""

from rl_lightning.statistics.bootstrap import bootstrap_interval
from rl_lightning.statistics.intervals import Interval, paired_score_interval, share_interval
from rl_lightning.statistics.paired import Difference, paired_difference, sign_flip_p
from rl_lightning.statistics.runs import RunMean, mean_over_runs
from rl_lightning.statistics.samples import majority_at_k, pass_at_k

__all__ = [
    "Difference",
    "Interval",
    "RunMean",
    "bootstrap_interval",
    "majority_at_k",
    "mean_over_runs",
    "paired_difference",
    "paired_score_interval",
    "pass_at_k",
    "share_interval",
    "sign_flip_p",
]
