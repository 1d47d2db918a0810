"""Surrogate objectives: functions of a token's probability ratio and advantage that the update maximizes.

A new surrogate is one file here, with a subclass of `Surrogate`. May import `loss_inputs` and `types`. At the first iteration on
a rollout, where every ratio is 1, all of them have the same gradient, advantage x d logp (SAPO's slope is 1 there too), except
GSPO, which spreads it evenly over the completion.
"""

from rl_lightning.objective.surrogates.cispo import CISPO
from rl_lightning.objective.surrogates.clip import Clip
from rl_lightning.objective.surrogates.gspo import GSPO
from rl_lightning.objective.surrogates.sapo import SAPO
from rl_lightning.objective.surrogates.surrogate import Surrogate, SurrogateTerms

__all__ = ["CISPO", "GSPO", "SAPO", "Clip", "Surrogate", "SurrogateTerms"]
