"""Problems made in guarded processes, ahead of the trainer."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from itertools import count

from rl_lightning.isolation import LOST, GuardedPool
from rl_lightning.tasks.generator import Unmade
from rl_lightning.tasks.stream import Prompt, PromptStream, TaskMixture
from rl_lightning.types import Problem

_TRIES = 3
"""So often a problem is asked for whose process dies."""


class ProblemWorkers:
    """A mixture's `problem`, in processes of its own and with a time limit.

    Args:
        mixture: what makes the problems.
        workers: processes.
        seconds: time limit of a problem.
    """

    def __init__(self, mixture: TaskMixture, workers: int, seconds: float) -> None:
        self._pool = GuardedPool(mixture, workers)
        self._seconds = seconds
        self._begun: dict[tuple[str, int, int, int | None], Future[Problem]] = {}

    def begin(self, task: str, item_seed: int, index: int, level: int | None = None) -> None:
        """Have a problem made that will be asked for."""
        wanted = task, item_seed, index, level
        self._begun[wanted] = self._pool.call("problem", *wanted, seconds=self._seconds)

    def __call__(self, task: str, item_seed: int, index: int, level: int | None = None) -> Problem:
        """The problem; waits for it.

        Raises:
            Unmade: the generator failed, took longer than the limit, or lost its process.
        """
        wanted = task, item_seed, index, level
        for _ in range(_TRIES):
            if wanted not in self._begun:
                self.begin(*wanted)
            try:
                return self._begun.pop(wanted).result()
            except TimeoutError as error:
                raise Unmade("too_slow", f"no problem within {self._seconds:g} s") from error
            except LOST:  # the process was killed from outside, or never got to it: the problem is not to blame
                continue
        raise Unmade("raised", f"its process died {_TRIES} times")

    def forget(self) -> None:
        """Cancel what was begun and not asked for."""
        while self._begun:
            self._begun.popitem()[1].cancel()

    def close(self) -> None:
        """Stop the processes."""
        self.forget()
        self._pool.close()


def prompts_from(stream: PromptStream, slot: int, ahead: int) -> Generator[Prompt]:
    """The stream's prompts from `slot` on, without end.

    Args:
        stream: the prompts.
        slot: the first.
        ahead: how many slots' first candidates are begun before they are asked for, where the stream's problems are made by
            `ProblemWorkers`.
    """
    workers = stream.problem if isinstance(stream.problem, ProblemWorkers) else None
    begun = slot
    try:
        for k in count(slot):
            while workers and begun < k + ahead:
                workers.begin(*stream.candidate(begun))
                begun += 1
            yield stream[k]
    finally:
        if workers:
            workers.forget()
