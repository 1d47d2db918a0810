"""Launch decode steps: as ordinary calls, or as CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from rl_lightning.memory.plan import MAX_GRAPHS
from rl_lightning.types import first_line

log = logging.getLogger(__name__)

Step = Callable[[int, int], None]
"""A decode step: one token for each of the first `slots` slots (first argument), which attends to the first `span` positions of
the cache (second argument). All that it reads and writes stays at the same addresses."""


class Eager:
    """Runs each step as an ordinary call, at the exact size that is needed.

    Attributes:
        sync_interval: steps between two checks of which rows have ended.
        failed: always False: there is nothing to capture.
    """

    sync_interval = 1
    failed = False

    def __init__(self, step: Step, slots: int, length: int, max_graphs: int = 0) -> None:
        self.run = step


class Recorder:
    """Captures steps as CUDA graphs. The graphs share their scratch memory, in which a step leaves nothing that is read later."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Capture the step without running it, and return the function that replays it."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                step()
        finally:
            torch.cuda.set_stream(stream)  # torch stays on the capture's own stream where the capture cannot be ended
        self._pool = graph.pool()
        return graph.replay


class Graphs:
    """Runs each step as a CUDA graph: hundreds of kernels for the cost of one launch.

    A graph has a fixed size, so sizes are rounded up to a few: the number of slots divided by powers of two, and quarters of the
    cache's length. The first time, a size is run as an ordinary call, because libraries choose and load their kernels in the
    first call, which a graph must not contain. The second time, it is captured. Graphs live as long as this object, and are right
    as long as all that a step reads stays where it is.

    Args:
        step: the step.
        slots: most slots of a step.
        length: positions of a slot.
        max_graphs: sizes that are captured, at most, because the driver needs memory for each; others are ordinary calls.

    Attributes:
        sync_interval: steps between two checks of which rows have ended; a check waits for the GPU, so it is not made every step.
        failed: whether a step could not be captured. From then on each is an ordinary call.
    """

    sync_interval = 8

    recorder: Callable[[], Callable[[Callable[[], None]], Callable[[], None]]] = Recorder

    def __init__(self, step: Step, slots: int, length: int, max_graphs: int = MAX_GRAPHS) -> None:
        self._step, self._capture = step, self.recorder()
        self._slots, self._length, self._max_graphs = slots, length, max_graphs
        self._graphs: dict[tuple[int, int], Callable[[], None]] = {}
        self._called: set[tuple[int, int]] = set()
        self.failed = False

    def run(self, slots: int, span: int) -> None:
        """Run a step of at least `slots` slots and `span` cache positions.

        Raises:
            OutOfMemoryError: in the step, or while it is captured.
        """
        size = self._round_up(slots, span)
        room = len(self._graphs) < self._max_graphs and not self.failed
        if room and size in self._called and size not in self._graphs:
            self._add(size)
        self._called.add(size)
        if size in self._graphs:
            self._graphs[size]()
        else:
            self._step(*size)

    def _add(self, size: tuple[int, int]) -> None:
        """Capture a size. A failure changes nothing that steps read, and is said once; an error in the step itself comes again
        when it is called."""
        try:
            self._graphs[size] = self._capture(partial(self._step, *size))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # torch.AcceleratorError is one
            self._graphs.clear()
            self.failed = True
            log.warning(f"decoding goes on without CUDA graphs, which is slower: {first_line(error)}")

    def _round_up(self, slots: int, span: int) -> tuple[int, int]:
        rounded = self._slots
        while rounded % 2 == 0 and rounded // 2 >= slots:
            rounded //= 2
        # A multiple of 8: with any other width, fused attention copies its mask in every layer.
        quarter = -(-self._length // 32) * 8
        return rounded, min(self._length, -(-span // quarter) * quarter)


def number_of_sizes(slots: int) -> int:
    """Sizes that steps of so many slots are rounded up to, at most: the slots divided by powers of two, four lengths each."""
    return 4 * (slots & -slots).bit_length()


def launch_of(devices: Sequence[torch.device], uncapturable: str | None) -> type[Eager | Graphs]:
    """How the steps of a decoder are run: as graphs on a single GPU, where a step can be captured.

    Args:
        devices: of its layers.
        uncapturable: why its steps cannot be captured, for a line; None where they can.
    """
    if len(set(devices)) > 1 or devices[0].type != "cuda":
        return Eager
    if uncapturable is not None:
        log.warning(f"decoding uses no CUDA graphs, which is slower: {uncapturable}")
        return Eager
    return Graphs
