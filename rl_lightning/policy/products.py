"""Linear products without autograd on a CPU, in the way that takes the least time on this machine.

For float32, torch calls MKL, which is slow on processors that are not Intel's: there oneDNN takes half the time, with the same
weights. A weight that only products read can be packed for oneDNN, which takes less again. So a shape is measured when it first
occurs. The choice is stored in the cache before it is used: another way rounds differently, and a resumed run must repeat a run's
bits.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.checkpointing.cache import cache_directory

log = logging.getLogger(__name__)

Way = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""From input (…, in), weight (out, in) and bias (out,) or None to (…, out), as `F.linear`."""

FEW_ROWS = 128
"""Up to so many rows, as in decoding, the choice is by `_MEASURED[True]` rows; it is another one for more."""

SMALL = 2**18
"""Weights with fewer numbers, such as all of the tiny policy's, are not measured: a measurement takes longer than is gained."""

_MEASURED = {True: 64, False: 256}
_MEASURED_TO_PACK = 32
"""Rows at which it is decided to pack a weight, which is for all numbers of rows: those of a rollout end one after another."""

_GAIN = 1.15
"""A way other than torch's own must be so many times as fast in the measurement, whose noise is about a tenth."""

_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 5e-4}
"""Largest error of a way, relative to the result: about one rounding in 16 bits."""

_SECONDS = 0.3
"""CPU time of a measurement, roughly; in at least 3 rounds."""


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _transposed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.mm(weight, x.flatten(0, -2).T).T.contiguous().view(*x.shape[:-1], len(weight))
    return out if bias is None else out.add_(bias)


WAYS: dict[str, Way] = {"linear": F.linear, "onednn": _onednn, "transposed": _transposed}
"""Each by the name that the cache has for it; the first is torch's own."""

_PACKED = "packed"
"""The name of the way of a weight that `pack` has packed."""

_LOCK = threading.Lock()
"""Held while the process's number of threads is changed."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, equal to it but for rounding, and without a gradient.

    Args:
        x: (…, in).
        weight: (out, in), also the transposed view of an (in, out) matrix, or what `packed` returns.
        bias: (out,) or None.
    """
    if weight.is_mkldnn:
        return _onednn(x, weight, bias)
    if torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return WAYS[way_of(x, weight)](x, weight, bias)


def packed(weight: Tensor) -> Tensor:
    """The weight as oneDNN reads it, for `product` alone, if that is the fastest way for few rows; else the weight itself.

    Args:
        weight: (out, in), contiguous.
    """
    if not is_measured(weight) or _chosen(*weight.shape, True, weight.dtype, True, may_pack=True) != _PACKED:
        return weight
    return _pack(weight)


def way_of(x: Tensor, weight: Tensor) -> str:
    """The name of the way of a product; the first time it is read from the cache, or measured and stored there."""
    if not is_measured(weight) or x.dtype != weight.dtype:
        return "linear"
    few = x.numel() // x.shape[-1] <= FEW_ROWS
    return _chosen(*weight.shape, weight.is_contiguous(), weight.dtype, few)


def is_measured(weight: Tensor) -> bool:
    """Whether the way of a weight's products is chosen by a measurement."""
    return weight.device.type == "cpu" and weight.dtype in _TOLERANCE and weight.numel() >= SMALL


@functools.cache
def _chosen(out: int, width: int, contiguous: bool, dtype: torch.dtype, few: bool, may_pack: bool = False) -> str:
    layout = ("" if contiguous else "t") + ("" if dtype == torch.float32 else f"_{dtype}".replace("torch.", ""))
    rows = _MEASURED_TO_PACK if may_pack else _MEASURED[few]
    name = f"{out}x{width}{layout}_{rows}" + ("_packed" if may_pack else "")
    stored = cache_directory("products") / _machine() / name
    try:
        if not stored.exists():
            _store(stored, fastest(out, width, contiguous, dtype, rows, may_pack))
        text = stored.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # a choice that another process could not repeat is not made
        _warn(stored.parent, getattr(error, "strerror", None) or "not a choice")
        text = ""
    return text if text in WAYS or (may_pack and text == _PACKED) else "linear"


@functools.cache
def _warn(directory: Path, why: str) -> None:
    log.warning(
        f"{directory}: {why}: products are computed in torch's own way, which may be slower (RL_LIGHTNING_CACHE)"
    )


def _store(path: Path, text: str) -> None:
    """Write a file that is not there yet, at once and whole; one that another process has written meanwhile stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)


@functools.cache
def _machine() -> str:
    """What decides the fastest way beside a product's shape, as a hash: the processor, and torch with its libraries."""
    cpu = Path("/proc/cpuinfo")
    named = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else [platform.processor()]
    known = {line for line in lines if line.startswith(named)}
    what = [platform.machine(), *sorted(known), torch.__version__, torch.__config__.show()]
    return hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]


@torch.no_grad()
def fastest(out: int, width: int, contiguous: bool, dtype: torch.dtype, rows: int, may_pack: bool) -> str:
    """Measure all ways that give the right result, on one thread, by its CPU time, which other processes change little."""
    draw = torch.Generator().manual_seed(0)  # the global generator is part of a run's state
    weight = torch.randn((out, width) if contiguous else (width, out), generator=draw).to(dtype)
    weight = weight if contiguous else weight.T
    x, bias = (torch.randn(size, generator=draw).to(dtype) for size in ((rows, width), (out,)))
    ways = [(name, way, weight) for name, way in WAYS.items()]
    if may_pack and (for_onednn := _packed_if_possible(weight)) is not None:
        many = torch.randn(_MEASURED[False], width, generator=draw).to(dtype)  # prefills too read a packed weight
        if is_right(_onednn, many, weight, bias, for_onednn):
            ways.append((_PACKED, _onednn, for_onednn))
    right = [(name, way, held) for name, way, held in ways if is_right(way, x, weight, bias, held)]
    seconds: dict[str, list[float]] = {name: [] for name, *_ in right}
    with _on_one_thread():
        while len(seconds["linear"]) < 3 or sum(map(sum, seconds.values())) < _SECONDS:
            for name, way, held in right:
                start = time.thread_time()
                way(x, held, None)
                seconds[name].append(time.thread_time() - start)
    best = {name: min(times) for name, times in seconds.items()}
    name = min(best, key=best.__getitem__)
    return name if best["linear"] > _GAIN * best[name] else "linear"


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, _MEASURED[True])


def _packed_if_possible(weight: Tensor) -> Tensor | None:
    try:
        return _pack(weight)
    except (AttributeError, RuntimeError):  # a private call, of builds with oneDNN, for the processors that it supports
        return None


@contextlib.contextmanager
def _on_one_thread() -> Iterator[None]:
    with _LOCK:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def is_right(way: Way, x: Tensor, weight: Tensor, bias: Tensor, held: Tensor | None = None) -> bool:
    """Whether a way is there, and gives what `F.linear` gives up to rounding, with and without a bias; `held` is the weight as the
    way reads it, if not as it is."""
    for each in (bias, None):
        expected = F.linear(x, weight, each)
        try:
            ours = way(x, weight if held is None else held, each)
        except (AttributeError, RuntimeError, TypeError):  # oneDNN's is a private call
            return False
        if ours.dtype != x.dtype or ours.shape != expected.shape or not ours.is_contiguous():
            return False
        if not bool((ours - expected).norm() <= _TOLERANCE[x.dtype] * expected.norm()):
            return False
    return True
