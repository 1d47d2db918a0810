"""Rollouts: sample a group of completions for each prompt, with the log-prob of every sampled token.

May import `policy`, `memory` and the layers below. Main exports: `RolloutEngine`, the protocol of whatever generates completions;
`LocalEngine`, which samples from the policy itself, and its `LocalEvaluator`; `VLLM`, which samples by vLLM; and `Sampling`, the
sampling settings.
Internally, `decode` is the decode loop, `decode_state` what a step reads and writes, `cache` the keys and values, `network` and
`policy_decoder` the model, `steps` launches steps as CUDA graphs, and `kept_graphs` keeps these from one rollout to the next;
`vllm_core` is the one file that imports vLLM.
"""

from rl_lightning.rollout.engine import OnFinished, RolloutEngine
from rl_lightning.rollout.local_engine import LocalEngine, LocalEvaluator
from rl_lightning.rollout.sampling import Sampling, draw_uniforms
from rl_lightning.rollout.vllm_engine import VLLM
from rl_lightning.rollout.vllm_server import VLLMServer

__all__ = [
    "VLLM",
    "LocalEngine",
    "LocalEvaluator",
    "OnFinished",
    "RolloutEngine",
    "Sampling",
    "VLLMServer",
    "draw_uniforms",
]
