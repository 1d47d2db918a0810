"""Launch decode steps: as ordinary calls, or as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

Step = Callable[[int, int], None]
"""A decode step: one token for each of the first `slots` slots (first argument), which attends to the first `span` positions of
the cache (second argument). All that it reads and writes stays at the same addresses."""


class Eager:
    """Runs each step as an ordinary call, at the exact size that is needed.

    Attributes:
        sync_interval: steps between two checks of which rows have ended.
    """

    sync_interval = 1

    def __init__(self, step: Step, slots: int, length: int) -> None:
        self.run = step


class Recorder:
    """Captures steps as CUDA graphs. The graphs share their scratch memory, in which a step leaves nothing that is read later."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Capture the step without running it, and return the function that replays it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step()
        self._pool = graph.pool()
        return graph.replay


class Graphs:
    """Runs each step as a CUDA graph: hundreds of kernels for the cost of one launch.

    A graph has a fixed size, so sizes are rounded up to a few: the number of slots divided by powers of two, and quarters of the
    cache's length. The first time, a size is run as an ordinary call, because libraries choose and load their kernels in the
    first call, which a graph must not contain. The second time, it is captured. Graphs live as long as this object, which is one
    rollout, so that their memory is free during the update.

    Attributes:
        sync_interval: steps between two checks of which rows have ended; a check waits for the GPU, so it is not made every step.
    """

    sync_interval = 8

    recorder: Callable[[], Callable[[Callable[[], None]], Callable[[], None]]] = Recorder

    def __init__(self, step: Step, slots: int, length: int) -> None:
        self._step, self._capture = step, self.recorder()
        self._slots, self._length = slots, length
        self._graphs: dict[tuple[int, int], Callable[[], None] | None] = {}

    def run(self, slots: int, span: int) -> None:
        """Run a step of at least `slots` slots and `span` cache positions."""
        size = self._round_up(slots, span)
        if size not in self._graphs:
            self._graphs[size] = None
            self._step(*size)
            return
        replay = self._graphs[size] = self._graphs[size] or self._capture(partial(self._step, *size))
        replay()

    def _round_up(self, slots: int, span: int) -> tuple[int, int]:
        rounded = self._slots
        while rounded % 2 == 0 and rounded // 2 >= slots:
            rounded //= 2
        # A multiple of 8: with any other width, fused attention copies its mask in every layer.
        quarter = -(-self._length // 32) * 8
        return rounded, min(self._length, -(-span // quarter) * quarter)
