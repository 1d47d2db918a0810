"""The rollout engine that samples by vLLM, in the trainer's process; evaluation stays on the policy itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rl_lightning.memory import Device, HeldModel, MemoryLimits, PlannedSettings, RolloutMemory, StepShape, halve_on_oom
from rl_lightning.memory.breakdown import together
from rl_lightning.memory.plan import Plan
from rl_lightning.policy import Policy
from rl_lightning.rollout import vllm_memory
from rl_lightning.rollout.engine import OnFinished, RolloutEngine
from rl_lightning.rollout.local_engine import LocalEngine
from rl_lightning.rollout.sampling import Sampling
from rl_lightning.rollout.vllm_check import check_engine
from rl_lightning.rollout.vllm_core import Core, Finished, Request, installed_version
from rl_lightning.rollout.vllm_weights import dense_weights, write_model
from rl_lightning.types import PromptBatch, Rollout, UserError, require

_COLDEST = 0.01
"""vLLM raises lower temperatures to this one, in a warning only."""


class VLLM(RolloutEngine):
    """Samples training rollouts by vLLM, evaluations by `LocalEngine`, whose draws make them paired. Needs the extra `vllm`.

    vLLM is started at the first `sync_weights`, so that a run that only evaluates does not wait for it.

    Args:
        weights: how vLLM gets the policy's weights before each step. merged: base and adapter as one dense copy; lora: the
            adapter, beside the dequantised base; auto: merged on a CPU, where vLLM's LoRA is slow, lora on a GPU (not measured).
        rollout_seconds: time limit of a rollout, of starting, and of a change of weights, in seconds; above 0.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, weights: Literal["auto", "merged", "lora"] = "auto", rollout_seconds: float = 1800.0) -> None:
        require("model.engine.weights", weights, weights in ("auto", "merged", "lora"), "auto, merged or lora")
        require("model.engine.rollout_seconds", rollout_seconds, rollout_seconds > 0, "above 0")
        self.weights, self.rollout_seconds = weights, rollout_seconds
        self._local = LocalEngine()
        self._core: Core | None = None

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

    def evaluator(self) -> RolloutEngine:
        """The policy itself; see `RolloutEngine`."""
        return self._local

    def start(self, policy: Policy, plan: Plan | None = None, limits: MemoryLimits | None = None) -> None:
        """Start the engine of evaluations, and check that vLLM can be used; see `RolloutEngine`.

        Raises:
            UserError: vLLM is not installed or too old, or there are several ranks or devices, or no adapters.
        """
        installed_version()
        if torch.distributed.is_initialized() and (ranks := torch.distributed.get_world_size()) > 1:
            raise UserError(
                f"model.engine: VLLM trains on one rank, and here are {ranks}, of which vLLM would take the others for its own; "
                "use trainer.devices=1, or model.engine: null"
            )
        if policy.trains_all or len(set(policy.layer_devices)) > 1:
            raise UserError(
                "model.engine: VLLM samples from a policy with adapters on one device; with lora_r 0 or devices_per_replica use "
                "model.engine: null"
            )
        self._local.start(policy, plan, limits)
        self._policy, self._plan, self._limits = policy, plan, limits
        self._lora = self.weights == "lora" or (self.weights == "auto" and policy.device.type == "cuda")

    def sync_weights(self) -> None:
        """Give vLLM the policy's weights; see `RolloutEngine`.

        Raises:
            UserError: at the first call: vLLM cannot load the model, or samples from another one; see `check_engine`.
        """
        if self._core is None:
            self._core = self._start_core()
            check_engine(self, self._policy, self._core.room.tokens, f"vLLM {self._core.version}")
        if not self._lora:
            self._core.load(dense_weights(self._policy, merged=True))
            return
        with tempfile.TemporaryDirectory(prefix="rl_lightning_adapter_") as directory:
            self._policy.save(Path(directory))
            self._core.load_adapter(Path(directory))

    def _start_core(self) -> Core:
        """Start vLLM from files with the policy's weights, dequantised; a reload would leave a head that is tied to the embedding
        as it was, so the engine cannot begin without them."""
        with tempfile.TemporaryDirectory(prefix="rl_lightning_vllm_") as directory:
            write_model(self._policy, not self._lora, Path(directory))
            room = vllm_memory.room_for(self._policy, self._plan, self._lora)
            return Core(Path(directory), self._policy.compute_dtype, self._policy.device, room, self.rollout_seconds)

    def generate(
        self, prompts: PromptBatch, sampling: Sampling, draws: Tensor | None, on_finished: OnFinished | None = None
    ) -> Rollout:
        """Sample completions; see `RolloutEngine`. A row's seed comes from its first draw. With top_p and min_p together, min_p is
        applied first. If memory runs out, `rollout_rows` is halved and all rows are sampled again.

        Raises:
            UserError: vLLM fails, takes too long, or returns a log-prob that is not finite.
        """
        core, limits = self._core, self._limits
        assert core is not None, "sync_weights comes first"
        longest, room = int(prompts.prompt_lengths.max()) + sampling.max_new_tokens, core.room.tokens
        require(
            "model.engine: tokens of prompt and completion", longest, longest <= room, f"at most {room}, as planned"
        )
        require(
            "sampling.temperature", sampling.temperature, sampling.temperature >= _COLDEST, "at least 0.01 for vLLM"
        )
        requests = self._requests(prompts, sampling, draws)
        if limits is None:
            rows = core.room.rows if sampling.max_rollout_rows == "auto" else sampling.max_rollout_rows
            return self._sample(core, prompts, requests, rows, on_finished)
        limit = limits.rollout_rows
        return halve_on_oom(limit, lambda: self._sample(core, prompts, requests, limit.value, on_finished))

    def _requests(self, prompts: PromptBatch, sampling: Sampling, draws: Tensor | None) -> list[Request]:
        """A request a row: its seed are the 53 random bits of the row's first draw."""
        lengths = prompts.prompt_lengths.tolist()
        ids = [row[:length] for row, length in zip(prompts.prompt_ids.tolist(), lengths, strict=True)]
        shared: dict[str, Any] = {
            "max_tokens": sampling.max_new_tokens,
            "stop_token_ids": self._policy.eos_token_ids.tolist(),
        }
        if draws is None:
            return [Request(prompt, {**shared, "temperature": 0.0}) for prompt in ids]
        shared |= {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p")}
        seeds = (draws[:, 0] * 2**53).long().tolist()
        return [Request(ids[n // sampling.num_generations], {**shared, "seed": seed}) for n, seed in enumerate(seeds)]

    def _sample(
        self, core: Core, prompts: PromptBatch, requests: list[Request], rows: int, on_finished: OnFinished | None
    ) -> Rollout:
        found: dict[int, Finished] = {}
        texts = [""] * len(requests)
        for each in core.generate(requests, rows):
            found[each.row] = each
            texts[each.row] = self._policy.decode_text(torch.tensor(each.tokens[: len(each.tokens) - each.ended]))
            if on_finished is not None:
                on_finished(each.row, texts[each.row])
        return rollout_of(prompts, [found[row] for row in range(len(requests))], texts, self._policy.pad_token_id)

    def close(self) -> None:
        """Stop vLLM and free its memory; see `RolloutEngine`."""
        self._local.close()
        if self._core is not None:
            core, self._core = self._core, None
            core.close()


def rollout_of(prompts: PromptBatch, rows: list[Finished], texts: list[str], pad_token_id: int) -> Rollout:
    """The rollout of all rows, as wide as the longest one.

    Raises:
        UserError: a log-prob is not finite.
    """
    lengths = torch.tensor([len(row.tokens) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids, logps = torch.full(mask.shape, pad_token_id), torch.zeros(mask.shape)
    ids[mask] = torch.tensor([token for row in rows for token in row.tokens])
    logps[mask] = torch.tensor([logp for row in rows for logp in row.logps])
    if wrong := int((~logps.isfinite()).sum()):
        raise UserError(
            f"model.engine: vLLM gave {wrong} of {int(lengths.sum())} tokens a log-prob that is not finite: its weights or its "
            "cache are broken; resume from the last checkpoint, or with model.engine: null, which samples from the policy itself"
        )
    ended = torch.tensor([row.ended for row in rows])
    ids, mask, logps, ended = (each.to(prompts.prompt_ids.device) for each in (ids, mask, logps, ended))
    return Rollout(prompts.prompt_ids, prompts.prompt_lengths, ids, mask, logps, ended, tuple(texts))
