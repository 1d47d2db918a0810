"""The rollout engine that samples by vLLM, in the trainer's process; evaluation stays on the policy itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import torch

from rl_lightning.memory import Device, HeldModel, MemoryLimits, PlannedSettings, RolloutMemory, StepShape
from rl_lightning.memory.breakdown import together
from rl_lightning.memory.plan import Plan
from rl_lightning.policy import Policy
from rl_lightning.rollout import vllm_memory
from rl_lightning.rollout.vllm_base import VLLMEngine
from rl_lightning.rollout.vllm_core import Core, installed_version
from rl_lightning.rollout.vllm_weights import dense_weights, write_model
from rl_lightning.types import UserError, require


class VLLM(VLLMEngine):
    """Samples training rollouts by vLLM, evaluations by `LocalEngine`, whose draws make them paired. Needs the extra `vllm`.

    vLLM is started at the first `sync_weights`, so that a run that only evaluates does not wait for it.

    Args:
        weights: how vLLM gets the policy's weights before each step. merged: base and adapter as one dense copy; lora: the
            adapter, beside the dequantised base; auto: merged on a CPU, where vLLM's LoRA is slow, lora on a GPU (not measured).
        rollout_seconds: time limit of a rollout, of starting, and of a change of weights, in seconds; above 0.

    Raises:
        UserError: a value out of range.
    """

    _running: Core | None

    def __init__(self, weights: Literal["auto", "merged", "lora"] = "auto", rollout_seconds: float = 1800.0) -> None:
        super().__init__(rollout_seconds)
        require("model.engine.weights", weights, weights in ("auto", "merged", "lora"), "auto, merged or lora")
        self.weights = weights

    def memory(self, model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device) -> RolloutMemory:
        """The memory of evaluations, and of vLLM's own copy of the model, in bytes; see `RolloutEngine`. On a GPU vLLM sleeps
        outside of rollouts."""
        own, size = self._local.memory(model, step, settings, device), model.bytes_per_element
        rows = min(settings.max_rollout_rows, step.rows)
        held = vllm_memory.held(model.shape, size, rows, step.prompt_tokens + step.new_tokens)
        passing = vllm_memory.passing(model.shape, size, rows, step.filtered)
        if device.kind == "cpu":
            return RolloutMemory(together(own.resident, held), [*own.peaks, passing])
        return RolloutMemory(own.resident, [*own.peaks, together(held, passing)])

    def start(self, policy: Policy, plan: Plan | None = None, limits: MemoryLimits | None = None) -> None:
        """Start the engine of evaluations, and check that vLLM can be used; see `RolloutEngine`.

        Raises:
            UserError: vLLM is not installed or too old, or there are several ranks or devices, or no adapters.
        """
        installed_version()
        if torch.distributed.is_initialized() and (ranks := torch.distributed.get_world_size()) > 1:
            raise UserError(
                f"model.engine: VLLM trains on one rank, and here are {ranks}, of which vLLM would take the others for its own; "
                "use trainer.devices=1, model.engine: VLLMServer, or model.engine: null"
            )
        super().start(policy, plan, limits)
        self._lora = self.weights == "lora" or (self.weights == "auto" and policy.device.type == "cuda")

    def _ready(self) -> Core:
        """Start vLLM from files with the policy's weights, dequantised; a reload would leave a head that is tied to the embedding
        as it was, so the engine cannot begin without them."""
        with tempfile.TemporaryDirectory(prefix="rl_lightning_vllm_") as directory:
            write_model(self._policy, not self._lora, Path(directory))
            room = vllm_memory.room_for(self._policy, self._plan, self._lora)
            return Core(Path(directory), self._policy.compute_dtype, self._policy.device, room, self.rollout_seconds)

    def _give_weights(self) -> None:
        core = self._running
        assert core is not None, "_ready comes first"
        if not self._lora:
            core.load(dense_weights(self._policy, merged=True))
            return
        with tempfile.TemporaryDirectory(prefix="rl_lightning_adapter_") as directory:
            self._policy.save(Path(directory))
            core.load_adapter(Path(directory))
