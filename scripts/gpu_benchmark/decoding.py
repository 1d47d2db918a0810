"""Measure decoding: how near it comes to the memory's bandwidth on which weights, and whether CUDA graphs give the tokens of eager
steps."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest.mock import patch

import torch

from gpu_benchmark import Report
from gpu_benchmark.device import device_of, now, peak, start_peak
from gpu_benchmark.prompts import batch_of, questions
from rl_lightning.memory.plan import MAX_GRAPHS
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import Sampling
from rl_lightning.rollout.decode import sample_groups
from rl_lightning.rollout.kept_graphs import KeptGraphs
from rl_lightning.rollout.network import Decoder
from rl_lightning.rollout.policy_decoder import Adapted, Merged, RolloutNetwork, ThroughTransformers, decoder_of
from rl_lightning.rollout.sampling import draw_uniforms
from rl_lightning.rollout.steps import Eager, Graphs, Recorder
from rl_lightning.types import PromptBatch, Rollout

PolicyDecoder = RolloutNetwork | ThroughTransformers


class TimedGraphs(Graphs):
    """Graphs that time the parts of a rollout: prompts, the first two steps of each size, which set up and capture, and the others.

    Attributes:
        device: whose work the clock waits for.
        captured: whether steps are captured; else each is launched as it is, at the sizes and sync intervals of graphs.
        begun: when the prompts were done.
        settling: seconds of each first or second step of a size.
        settled: the number of other steps.
    """

    device: ClassVar[torch.device]
    captured: ClassVar[bool]
    begun: ClassVar[float]
    settling: ClassVar[list[float]]
    settled: ClassVar[int]

    def __init__(self, step: Callable[[int, int], None], slots: int, length: int, max_graphs: int = MAX_GRAPHS) -> None:
        cls = type(self)
        cls.begun, cls.settling, cls.settled = now(cls.device), [], 0
        super().__init__(step, slots, length, max_graphs)

    @classmethod
    def recorder(cls) -> Callable[[Callable[[], None]], Callable[[], None]]:
        return Recorder() if cls.captured else lambda step: step

    def run(self, slots: int, span: int) -> None:
        cls = type(self)
        if self._graphs.get(self._round_up(slots, span)):
            cls.settled += 1
            super().run(slots, span)
        else:
            began = now(cls.device)
            super().run(slots, span)
            cls.settling.append(now(cls.device) - began)


def timed_graphs(device: torch.device, graphs: bool) -> type[TimedGraphs]:
    """A separate class for one measurement. On a CPU there are no graphs: steps are called."""
    return type("TimedGraphs", (TimedGraphs,), {"device": device, "captured": graphs and device.type == "cuda"})


@dataclass(frozen=True)
class DecodeTimes:
    """Where a rollout's time went.

    Attributes:
        total: seconds of all of it.
        prefill: seconds until the first step.
        settling: seconds of the steps that set up or capture, one by one.
        settled_steps: the number of other steps, which take the rest of the time.
    """

    total: float
    prefill: float
    settling: list[float]
    settled_steps: int

    @property
    def step_seconds(self) -> float:
        """Mean of the settled steps."""
        return (self.total - self.prefill - sum(self.settling)) / self.settled_steps

    def shares_of_roofline(
        self, weight_bytes: int | None, bandwidth: float | None
    ) -> tuple[float | None, float | None]:
        """How near decoding comes to reading every weight once per step at memory bandwidth.

        Args:
            weight_bytes: bytes that a step must read; None if not known.
            bandwidth: bytes per second; None if not measured.

        Returns:
            the share for the settled steps only, and for all steps over the rollout's whole time, including prompts and setup.
        """
        if weight_bytes is None or bandwidth is None:
            return None, None
        least = weight_bytes / bandwidth
        steps = self.settled_steps + len(self.settling)
        return least / self.step_seconds, least * steps / self.total


def measure(job: dict[str, Any], report: Report) -> None:
    """Tokens per second for each kind of weights, and the share of what the bandwidth allows.

    Args:
        job: `device`; `path`; `bandwidth` in bytes per second, or None; `prompts`, `generations`, `prompt_tokens`, `new_tokens`.
    """
    for merged in (False, True):
        policy = Policy(PolicyConfig(job["path"]), device_of(job["device"]))
        decoder = decoder_of(policy, merged)
        kernels = ("dense",) if merged else ("chosen", "fused", "dequantised")
        for kernel in kernels:
            with products(kernel, policy.device):
                found = {"graphs": _decode(job, policy, decoder, graphs=True)}
                if kernel in ("chosen", "dense"):
                    found["eager"] = _decode(job, policy, decoder, graphs=False)
            report(**{"merged" if merged else f"4-bit, {kernel}": found})
        del policy, decoder
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def products(kernel: str, device: torch.device) -> Iterator[None]:
    """How 4-bit weights are multiplied on a GPU: read packed by a fused kernel, or dequantised first; `chosen` leaves it to
    bitsandbytes."""
    if device.type != "cuda" or kernel not in ("fused", "dequantised"):
        yield
        return
    ops = importlib.import_module("bitsandbytes.backends.cuda.ops")  # loads nowhere else
    with patch.object(ops, "_gemm_4bit_use_custom_fn", lambda *_: kernel == "fused"):
        yield


def _decode(job: dict[str, Any], policy: Policy, decoder: PolicyDecoder, graphs: bool) -> dict[str, Any]:
    launch, device = timed_graphs(policy.device, graphs), policy.device
    batch = batch_of(questions(job["prompts"], *job["prompt_tokens"])).to(device)
    rows = job["prompts"] * job["generations"]
    sampling = Sampling(job["generations"], job["new_tokens"], max_rollout_rows=rows)
    # Libraries set themselves up.
    _sample(policy, decoder, batch, Sampling(job["generations"], 16), torch.Generator(), launch)
    start_peak(device)
    began = now(device)
    rollout = _sample(policy, decoder, batch, sampling, torch.Generator().manual_seed(0), launch)
    times = DecodeTimes(now(device) - began, launch.begun - began, launch.settling, launch.settled)
    tokens, read = int(rollout.mask.sum()), weight_bytes(decoder)
    lengths = batch.prompt_lengths.float().mean() + rollout.lengths.float().mean() / 2
    settled, whole = times.shares_of_roofline(read, job["bandwidth"])
    return {
        "captured": launch.captured,
        "tokens": tokens,
        "tokens_per_second": round(tokens / times.total, 1),
        "seconds": round(times.total, 4),
        "prefill_seconds": round(times.prefill, 4),
        "settling_steps": len(times.settling),
        "settling_seconds": round(sum(times.settling), 4),
        "step_ms": round(1000 * times.step_seconds, 4),
        "weight_bytes_a_step": read,
        "cache_bytes_a_step": round(rows * cache_bytes(decoder) * float(lengths)),
        "share_of_roofline": settled and round(settled, 6),
        "share_of_roofline_all_in": whole and round(whole, 6),
        "peak": peak(device),
    }


def cache_bytes(decoder: Decoder) -> int:
    """Keys and values of one token in all layers."""
    layers, heads, width = decoder.kv_shape
    return 2 * layers * heads * width * decoder.head.weight.element_size()


def weight_bytes(decoder: PolicyDecoder) -> int | None:
    """What a decode step must read of the weights; None if it goes through transformers' own forward."""
    if not isinstance(decoder, RolloutNetwork):
        return None
    total = decoder.head.weight.nbytes
    for layer in decoder.layers:
        for product in (layer.qkv, layer.out, layer.gate_up, layer.down):
            if isinstance(product, Adapted):
                total += product.a.nbytes + product.b.nbytes + sum(_packed_bytes(base.weight) for base in product.bases)
            elif isinstance(product, Merged):
                total += product.weight.nbytes
    return total


def _packed_bytes(weight: Any) -> int:
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.nbytes
    scales = state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
    return weight.data.nbytes + scales


def agree(job: dict[str, Any], report: Report) -> None:
    """Greedy completions with graphs, compared with the same steps launched eagerly and with steps of the exact size.

    Args:
        job: `device`, `path`, `rows`, `prompt_tokens`, `new_tokens`.
    """
    for merged in (False, True):
        policy = Policy(PolicyConfig(job["path"]), device_of(job["device"]))
        decoder = decoder_of(policy, merged)
        batch = batch_of(questions(job["rows"], *job["prompt_tokens"])).to(policy.device)
        sampling = Sampling(2, job["new_tokens"])
        graphs = _sample(policy, decoder, batch, sampling, None, timed_graphs(policy.device, graphs=True))
        same_steps = _sample(policy, decoder, batch, sampling, None, timed_graphs(policy.device, graphs=False))
        eager = _sample(policy, decoder, batch, sampling, None, Eager)
        report(
            **{
                "merged" if merged else "unmerged": {
                    "captured": policy.device.type == "cuda",
                    "tokens": int(graphs.mask.sum()),
                    "graphs_against_the_same_steps": agreement(graphs, same_steps),
                    # Other sizes are other kernels: where two tokens are about equally likely, rounding decides.
                    "graphs_against_steps_of_the_exact_size": agreement(graphs, eager),
                }
            }
        )


def agreement(ours: Rollout, theirs: Rollout) -> dict[str, Any]:
    """Share of tokens before the first difference in each row, and of rows without one."""
    width = min(ours.mask.shape[1], theirs.mask.shape[1])
    same = (ours.completion_ids[:, :width] == theirs.completion_ids[:, :width]).cumprod(dim=1).bool()
    tokens = (same & ours.mask[:, :width]).sum() / ours.mask.sum()
    rows = (same | ~ours.mask[:, :width]).all(dim=1) & (ours.lengths == theirs.lengths)
    return {"tokens": round(float(tokens), 5), "rows": round(float(rows.float().mean()), 5)}


def _sample(
    policy: Policy,
    decoder: PolicyDecoder,
    batch: PromptBatch,
    sampling: Sampling,
    generator: torch.Generator | None,
    launch: type[Eager | Graphs],
) -> Rollout:
    """A rollout from the policy's current weights; greedy without a generator."""
    draws = None
    if generator is not None:
        draws = draw_uniforms(generator, len(batch) * sampling.num_generations, sampling.max_new_tokens)
    decoder.refresh()
    with decoder.ready():
        return sample_groups(
            decoder,
            batch,
            sampling,
            policy.eos_token_ids,
            policy.decode_text,
            draws,
            policy.pad_token_id,
            graphs=KeptGraphs(launch),
        )
