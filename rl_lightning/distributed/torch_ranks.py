"""Ranks that Lightning has started as processes of torch.distributed: on one machine or several, by ddp, torchrun or SLURM."""

from __future__ import annotations

import atexit
import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rl_lightning.types import UserError, first_line

T = TypeVar("T")


class TorchRanks:
    """The collective operations over all processes of torch.distributed's default group, which must exist.

    Values are pickled by the ranks of this run themselves, so they are trusted.

    Args:
        device: of this rank, to which the tensors in received values are moved.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.world_size, self._device = dist.get_rank(), dist.get_world_size(), device
        self.seconds: dict[str, float] = defaultdict(float)
        atexit.register(_leave)

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over all ranks."""
        total = values.to(self._device, copy=True)  # a layer may be on another one
        with self._together("sum"):
            dist.all_reduce(total)
            if total.device.type == "cuda":
                torch.cuda.synchronize(total.device)  # so that its seconds are known
        return total.to(values.device)

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any rank."""
        raised = torch.tensor(int(flag), device=self._device)
        with self._together("any"):
            dist.all_reduce(raised, dist.ReduceOp.MAX)
            return bool(raised)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks."""
        found: list[Any] = [None] * self.world_size
        with self._together("gather"):
            dist.all_gather_object(found, _pickled(value))
        return [value if rank == self.rank else self._unpickled(each) for rank, each in enumerate(found)]

    def broadcast(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, or the exception that it raises; as a UserError on the others."""
        made: tuple[Any, str] = (None, "")
        error: Exception | None = None
        if self.rank == 0:
            try:
                made = (make(), "")
            except Exception as raised:  # any: the other ranks wait for this
                error, made = raised, (None, f"rank 0: {first_line(raised)}")
        sent = [_pickled(made) if self.rank == 0 else None]
        with self._together("broadcast"):
            dist.broadcast_object_list(sent, 0, device=self._device if self._device.type == "cuda" else None)
        if error is not None:
            raise error
        value, failure = made if self.rank == 0 else self._unpickled(sent[0])
        if failure:
            raise UserError(failure)
        return value

    def _unpickled(self, content: Any) -> Any:
        return torch.load(io.BytesIO(content), map_location=self._device, weights_only=False)

    @contextmanager
    def _together(self, operation: str) -> Iterator[None]:
        """Count the operation's seconds, and say in a line that another rank is gone."""
        began = time.perf_counter()
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # gloo's, and a base class of NCCL's
            raise UserError(
                f"another rank has ended or cannot be reached ({first_line(error)[:160]}); what it printed says why; resume by "
                "--ckpt_path last"
            ) from error
        self.seconds[operation] += time.perf_counter() - began


def _leave() -> None:
    """End gloo's threads before the interpreter ends: where another rank is gone, they would abort this process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _pickled(value: object) -> bytes:
    """torch's own format, in which tensors can be read on another device."""
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()
