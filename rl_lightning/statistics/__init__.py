"""How certain a measured accuracy, paired difference or mean over runs is: 95% intervals, exact p-values, pass@k and maj@k.

Pure functions of numbers. May import only numpy and scipy, and nothing else of this package. It has what scipy lacks:
intervals of stratified suites, Tango's score interval, the studentised paired bootstrap, exact p-values with several samples per
problem, pass@k. Every method was chosen by simulation: docs/evaluation.md has the coverages, and tests/statistics checks them, and
compares with scipy where it has the same method.
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
