"""Everything that the training step in `module.py` needs besides the algorithm: load, optimize, save and resume a policy; metrics.

May import all packages below: policy, rollout, scoring, objective, memory, checkpointing. Main exports: `AdapterModule`, the
LightningModule that loads, optimizes and saves a policy; `ScoredModule`, which also scores completions and evaluates;
`StepCallback`, the hook through which a callback receives each step; and `PromptSource`, the protocol of a data module. Dynamic
sampling, metrics and diagnostics are imported from their modules.
"""

from rl_lightning.training.adapter_module import AdapterModule
from rl_lightning.training.prompt_source import PromptSource
from rl_lightning.training.scored_module import ScoredModule
from rl_lightning.training.step_callback import StepCallback

__all__ = ["AdapterModule", "PromptSource", "ScoredModule", "StepCallback"]
