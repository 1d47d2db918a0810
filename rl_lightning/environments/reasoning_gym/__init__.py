"""The 105 tasks of reasoning-gym as environments, with their curricula, descriptions and catalogue.

May import reasoning-gym, and of this package `types`, `sandbox` and the base class in `environment`. Main exports:
`task.ReasoningGymTask`, and for the command line `catalogue`. `answer_checks` refuses answers that reasoning-gym's own verifiers
must not receive.
"""

from rl_lightning.environments.reasoning_gym.late_import import import_when_used

import_when_used()
