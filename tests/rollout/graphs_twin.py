"""A CUDA graph's twin on a CPU: it replays what was captured, and fails where that reads another address than the first time."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rl_lightning.rollout.steps import Graphs


class Addresses(TorchDispatchMode):
    """Lists the operations of a step with the addresses of all that they read or write and that is not the step's own."""

    def __init__(self) -> None:
        super().__init__()
        self.used: list[tuple[str, tuple[int, ...]]] = []
        self._own: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        before = {each.untyped_storage().data_ptr() for each in given}
        self._own |= {
            storage
            for each in tree_leaves(out)
            if isinstance(each, torch.Tensor) and (storage := each.untyped_storage().data_ptr()) not in before
        }
        if func is torch.ops.aten.lift_fresh.default:  # a Python number, which a graph holds as it is
            self._own.add(args[0].untyped_storage().data_ptr())
        theirs = tuple(each.data_ptr() for each in given if each.untyped_storage().data_ptr() not in self._own)
        self.used.append((str(func), theirs))
        return out


class TwinGraphs(Graphs):
    """Graphs on a CPU.

    Attributes:
        captured: the sizes that were captured so far, in their order.
        replays: how many replays there were.
        failure: raised by each capture, if it is set.
    """

    captured: ClassVar[list[tuple[int, int]]]
    replays: ClassVar[int]
    failure: ClassVar[Exception | None]

    @classmethod
    def recorder(cls) -> Callable[[Callable[[], None]], Callable[[], None]]:
        def capture(step) -> Callable[[], None]:
            cls.captured.append(step.args)
            if cls.failure is not None:
                raise cls.failure
            first: list[tuple[str, tuple[int, ...]]] = []

            def replay() -> None:
                cls.replays += 1
                with Addresses() as now:
                    step()
                if first:
                    assert now.used == first, "a graph would have read or written elsewhere"
                first.extend(now.used if not first else [])

            return replay

        return capture


def twin() -> type[TwinGraphs]:
    """A class of its own, so that counts are of one test."""
    return type("Twin", (TwinGraphs,), {"captured": [], "replays": 0, "failure": None})


class Called(Graphs):
    """The sizes of graphs, as ordinary calls."""

    recorder = staticmethod(lambda: lambda step: step)
