"""How a decode step is launched: as it is, or as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

Step = Callable[[int, int], None]
"""One token for each of the first so many slots, reading so much of the cache; all it reads and writes stays in place."""


class Eager:
    """Runs a step at the very size that is needed.

    Attributes:
        look_every: steps between two looks at what has ended.
    """

    look_every = 1

    def __init__(self, step: Step, slots: int, length: int) -> None:
        self.run = step


class Recorder:
    """Captures steps as CUDA graphs. They share their scratch memory: a step leaves nothing there that is read later."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """What replays the step; nothing is run yet."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step()
        self._pool = graph.pool()
        return graph.replay


class Graphs:
    """Runs a step as a CUDA graph: hundreds of kernels for the price of one launch.

    A graph has one size, so sizes are rounded up to a few: the slots halved as often as may be, the cache in quarters. Each is
    run as it is the first time, for libraries choose and load their kernels in a size's first call, which a graph must not
    contain; captured the second time; and lives as long as this object, which is one rollout: what it holds must not be there
    when the update needs the memory.

    Attributes:
        look_every: a look at what has ended waits for the GPU, so it is taken every few steps.
    """

    look_every = 8

    recorder: Callable[[], Callable[[Callable[[], None]], Callable[[], None]]] = Recorder

    def __init__(self, step: Step, slots: int, length: int) -> None:
        self._step, self._capture = step, self.recorder()
        self._slots, self._length = slots, length
        self._graphs: dict[tuple[int, int], Callable[[], None] | None] = {}

    def run(self, slots: int, span: int) -> None:
        """At least `slots` and `span`."""
        size = self._rounded(slots, span)
        if size not in self._graphs:
            self._graphs[size] = None
            self._step(*size)
            return
        replay = self._graphs[size] = self._graphs[size] or self._capture(partial(self._step, *size))
        replay()

    def _rounded(self, slots: int, span: int) -> tuple[int, int]:
        most = self._slots
        while most % 2 == 0 and most // 2 >= slots:
            most //= 2
        quarter = (
            -(-self._length // 32) * 8
        )  # fused attention wants its mask in whole eights, or copies it in every layer
        return most, min(self._length, -(-span // quarter) * quarter)
