"""The policy: a frozen base model, in 4 bits or dense, with LoRA adapters in float32; or a model that is trained as a whole.

Loads the model, computes log-probs of packed micro-batches without materializing full logits, saves and loads what is trained. The
only package that imports peft and bitsandbytes; of this package it may import `types` and `checkpointing`. Main exports: `Policy`
with its settings, `PolicyConfig`; and `pack`, which packs a rollout into `MicroBatch`es.
"""

from rl_lightning.policy import bitsandbytes_import  # noqa: F401, before PEFT imports it
from rl_lightning.policy.config import PolicyConfig
from rl_lightning.policy.microbatch import MicroBatch, pack
from rl_lightning.policy.policy import Policy

__all__ = ["MicroBatch", "Policy", "PolicyConfig", "pack"]
