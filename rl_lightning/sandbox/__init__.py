"""Locked-down worker processes that may hang, crash or be killed; to the trainer that is a named failure of one call.

May import only `types` and pebble. Answers that a model wrote, and problem generators, run nowhere else. Main exports:
`SandboxPool`, `Batches` of short calls, and `WORKER_FAILURES`, the exceptions of a call whose worker was lost; `sandbox.programs`
runs whole programs that a model wrote. docs/scoring.md says which limit applies on which system.
"""

from rl_lightning.sandbox.batches import Batches
from rl_lightning.sandbox.pool import WORKER_FAILURES, SandboxPool

__all__ = ["WORKER_FAILURES", "Batches", "SandboxPool"]
