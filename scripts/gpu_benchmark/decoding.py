"""Decoding: how near to the memory's bandwidth, on which weights; and whether graphs say what eager steps say."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest.mock import patch

import torch

from gpu_benchmark import Report
from gpu_benchmark.device import device_of, now, peak, start_peak
from gpu_benchmark.prompts import batch_of, questions
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.policy.rollout_network import Adapted, RolloutNetwork
from rl_lightning.rollout import Sampling, sample_groups
from rl_lightning.rollout.steps import Eager, Graphs, Recorder
from rl_lightning.types import PromptBatch, Rollout


class Watched(Graphs):
    """Graphs with a clock at the seams: prompts, the first two steps of each size, which set up and capture, and the others.

    Attributes:
        device: whose work the clock waits for.
        captured: whether steps are captured; else each is launched as it is, at the sizes and with the looks of graphs.
        begun: when the prompts were done.
        settling: seconds of each first or second step of a size.
        settled: the other steps.
    """

    device: ClassVar[torch.device]
    captured: ClassVar[bool]
    begun: ClassVar[float]
    settling: ClassVar[list[float]]
    settled: ClassVar[int]

    def __init__(self, step: Callable[[int, int], None], slots: int, length: int) -> None:
        cls = type(self)
        cls.begun, cls.settling, cls.settled = now(cls.device), [], 0
        super().__init__(step, slots, length)

    @classmethod
    def recorder(cls) -> Callable[[Callable[[], None]], Callable[[], None]]:
        return Recorder() if cls.captured else lambda step: step

    def run(self, slots: int, span: int) -> None:
        cls = type(self)
        if self._graphs.get(self._rounded(slots, span)):
            cls.settled += 1
            super().run(slots, span)
        else:
            began = now(cls.device)
            super().run(slots, span)
            cls.settling.append(now(cls.device) - began)


def watched(device: torch.device, graphs: bool) -> type[Watched]:
    """On a CPU there are no graphs: steps are called."""
    return type("Watched", (Watched,), {"device": device, "captured": graphs and device.type == "cuda"})


def measure(job: dict[str, Any], report: Report) -> None:
    """Tokens a second of each kind of weights, and the share of what the bandwidth allows.

    Args:
        job: `device`; `path`; `bandwidth` in bytes a second, or None; `prompts`, `generations`, `prompt_tokens`, `new_tokens`.
    """
    for weights in ("trained", "merged"):
        policy = Policy(PolicyConfig(job["path"], rollout_weights=weights), device_of(job["device"]))
        kernels = ("chosen", "fused", "dequantised") if weights == "trained" else ("dense",)
        for kernel in kernels:
            with products(kernel, policy.device):
                found = {"graphs": _decode(job, policy, graphs=True)}
                if kernel in ("chosen", "dense"):
                    found["eager"] = _decode(job, policy, graphs=False)
            name = "merged" if weights == "merged" else f"4-bit, {kernel}"
            report(**{name: found})
        del policy
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def products(kernel: str, device: torch.device) -> Iterator[None]:
    """How 4-bit weights are multiplied on a GPU: read packed by a fused kernel, or unpacked first; `chosen` leaves it to
    bitsandbytes."""
    if device.type != "cuda" or kernel not in ("fused", "dequantised"):
        yield
        return
    ops = importlib.import_module("bitsandbytes.backends.cuda.ops")  # loads nowhere else
    with patch.object(ops, "_gemm_4bit_use_custom_fn", lambda *_: kernel == "fused"):
        yield


def _decode(job: dict[str, Any], policy: Policy, graphs: bool) -> dict[str, Any]:
    launch, device = watched(policy.device, graphs), policy.device
    batch = batch_of(questions(job["prompts"], *job["prompt_tokens"])).to(device)
    sampling = Sampling(job["generations"], job["new_tokens"], max_rollout_rows=job["prompts"] * job["generations"])
    # Libraries set themselves up.
    _roll(policy, batch, Sampling(job["generations"], 16), torch.Generator(), launch)
    start_peak(device)
    began = now(device)
    rollout = _roll(policy, batch, sampling, torch.Generator().manual_seed(0), launch)
    seconds = now(device) - began
    settled = seconds - (launch.begun - began) - sum(launch.settling)
    tokens = int(rollout.mask.sum())
    rows, kept = len(rollout.texts), policy.rollout_network.kv_shape
    cache = 2 * kept[0] * kept[1] * kept[2] * policy.rollout_network.head.element_size()
    read = weight_bytes(policy.rollout_network)
    lengths = batch.prompt_lengths.float().mean() + rollout.lengths.float().mean() / 2
    least = None if job["bandwidth"] is None or read is None else read / job["bandwidth"]
    return {
        "captured": launch.captured,
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1),
        "seconds": round(seconds, 4),
        "prefill_seconds": round(launch.begun - began, 4),
        "settling_steps": len(launch.settling),
        "settling_seconds": round(sum(launch.settling), 4),
        "step_ms": round(1000 * settled / launch.settled, 4),
        "weight_bytes_a_step": read,
        "cache_bytes_a_step": round(rows * cache * float(lengths)),
        "share_of_roofline": least and round(least * launch.settled / settled, 6),
        "share_of_roofline_all_in": least and round(least * (launch.settled + len(launch.settling)) / seconds, 6),
        "peak": peak(device),
    }


def weight_bytes(network: Any) -> int | None:
    """What a decode step must read of the weights; None where the network is not written out."""
    if not isinstance(network, RolloutNetwork):
        return None
    total = network.head.nbytes
    for layer in network.layers:
        for product in (layer.qkv, layer.out, layer.gate_up, layer.down):
            if isinstance(product, Adapted):
                total += product.a.nbytes + product.b.nbytes + sum(_packed_bytes(base.weight) for base in product.bases)
            else:
                total += product.weight.nbytes  # type: ignore[attr-defined]
    return total


def _packed_bytes(weight: Any) -> int:
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.nbytes
    scales = state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
    return weight.data.nbytes + scales


def agree(job: dict[str, Any], report: Report) -> None:
    """Greedy completions by graphs against the same steps launched as they are, and against steps of the very size.

    Args:
        job: `device`, `path`, `rows`, `prompt_tokens`, `new_tokens`.
    """
    for weights in ("trained", "merged"):
        policy = Policy(PolicyConfig(job["path"], rollout_weights=weights), device_of(job["device"]))
        batch = batch_of(questions(job["rows"], *job["prompt_tokens"])).to(policy.device)
        sampling = Sampling(2, job["new_tokens"])
        graphs = _roll(policy, batch, sampling, None, watched(policy.device, graphs=True))
        same_steps = _roll(policy, batch, sampling, None, watched(policy.device, graphs=False))
        eager = _roll(policy, batch, sampling, None, Eager)
        report(
            **{
                weights: {
                    "captured": policy.device.type == "cuda",
                    "tokens": int(graphs.mask.sum()),
                    "graphs_against_the_same_steps": _agreement(graphs, same_steps),
                    # Other sizes are other kernels: where two tokens are about equally likely, rounding decides.
                    "graphs_against_steps_of_the_very_size": _agreement(graphs, eager),
                }
            }
        )


def _agreement(ours: Rollout, theirs: Rollout) -> dict[str, Any]:
    """Share of tokens before the first difference in each row, and of rows without one."""
    width = min(ours.mask.shape[1], theirs.mask.shape[1])
    same = (ours.completion_ids[:, :width] == theirs.completion_ids[:, :width]).cumprod(dim=1).bool()
    tokens = (same & ours.mask[:, :width]).sum() / ours.mask.sum()
    rows = (same | ~ours.mask[:, :width]).all(dim=1) & (ours.lengths == theirs.lengths)
    return {"tokens": round(float(tokens), 5), "rows": round(float(rows.float().mean()), 5)}


def _roll(
    policy: Policy,
    batch: PromptBatch,
    sampling: Sampling,
    generator: torch.Generator | None,
    launch: type[Eager | Graphs],
) -> Rollout:
    with policy.sampling() as model:
        return sample_groups(
            model,
            batch,
            sampling,
            policy.end_token_ids,
            policy.decode_text,
            generator,
            policy.pad_token_id,
            launch=launch,
        )
