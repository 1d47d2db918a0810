"""The rollout engine that samples by a vLLM server at a URL, on another card or machine; the user starts it."""

from __future__ import annotations

from pathlib import Path

import torch

from rl_lightning.checkpointing.cache import cache_directory
from rl_lightning.checkpointing.model_files import max_lora_rank
from rl_lightning.memory import Device, HeldModel, MemoryLimits, PlannedSettings, RolloutMemory, StepShape
from rl_lightning.memory.plan import Plan
from rl_lightning.policy import Policy
from rl_lightning.rollout.vllm_base import VLLMEngine
from rl_lightning.rollout.vllm_http import HTTPClient
from rl_lightning.rollout.vllm_served import Served
from rl_lightning.rollout.vllm_weights import shared_model
from rl_lightning.types import require


class VLLMServer(VLLMEngine):
    """Samples training rollouts by a vLLM server, evaluations by `LocalEngine`, whose draws make them paired. No vLLM has to be
    installed here, and no memory is planned for it.

    The user starts the server. The model to serve is written into `directory` at the first `sync_weights`, and while no server of
    it is there, the error has the command. Each rank loads its own adapter, so several may share a server.

    Args:
        url: of the server; http or https. `VLLM_API_KEY` is sent as its key.
        directory: seen by this machine and the server's under the same path; for the dequantised base, which is kept, and the
            present adapter. null: `vllm_server` in the user's cache.
        rollout_seconds: time limit of a rollout, and of a change of weights, in seconds; above 0.

    Raises:
        UserError: a value out of range.
    """

    _running: Served | None

    def __init__(
        self, url: str = "http://127.0.0.1:8000", directory: str | None = None, rollout_seconds: float = 1800.0
    ) -> None:
        super().__init__(rollout_seconds)
        self.url, self._client = url, HTTPClient(url)
        self.directory = cache_directory("vllm_server") if directory is None else Path(directory).expanduser()
        free = self.directory.is_dir() or not self.directory.exists()
        require("model.engine.directory", directory, free, "a directory, or a name that is free; this is a file")

    def memory(self, model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device) -> RolloutMemory:
        """The memory of evaluations; see `RolloutEngine`. Training rollouts need none here."""
        return self._local.memory(model, step, settings, device)

    def start(self, policy: Policy, plan: Plan | None = None, limits: MemoryLimits | None = None) -> None:
        """Start the engine of evaluations; see `RolloutEngine`.

        Raises:
            UserError: the policy has no adapters, or is on several devices.
        """
        super().start(policy, plan, limits)
        self._limits = None  # they are for this device's memory

    def _ready(self) -> Served:
        directory = self.directory.resolve()
        model = shared_model(self._policy, directory)
        served = Served(self.url, self._client, directory, self.rollout_seconds, self._command(model))
        served.refuse_other(model.name, self._tokens())
        return served

    def _tokens(self) -> int:
        """The longest sequence of a run; 1 where it is not planned, and each rollout is checked alone."""
        return 1 if self._plan is None else self._plan.step.prompt_tokens + self._plan.step.new_tokens

    def _command(self, model: Path) -> str:
        """What starts the server; with vLLM's own command for a GPU and for a CPU alike."""
        policy = self._policy
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        length = "" if self._plan is None else f" --max-model-len {self._tokens()}"
        return (
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True python -m vllm.entrypoints.openai.api_server --model {model}{length} "
            f"--dtype {str(policy.compute_dtype).removeprefix('torch.')} --port {self._client.port} --skip-tokenizer-init "
            f"--enable-lora --max-loras {ranks} --max-lora-rank {max_lora_rank(policy.config.lora_r)} "
            "--logprobs-mode processed_logprobs"
        )

    def _give_weights(self) -> None:
        assert self._running is not None, "_ready comes first"
        self._running.load_adapter(self._policy.save)
