"""Generate problems in sandboxed processes, ahead of the trainer."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from itertools import count

from rl_lightning.environments.environment import GenerationFailed
from rl_lightning.environments.mixture import EnvironmentMixture
from rl_lightning.environments.stream import Prompt, PromptStream
from rl_lightning.sandbox import WORKER_FAILURES, SandboxPool
from rl_lightning.types import Problem

_TRIES = 3
"""Attempts at a problem whose worker process dies."""


class ProblemWorkers:
    """A mixture's `problem`, in sandboxed processes and with a time limit.

    Args:
        mixture: generates the problems.
        workers: number of processes.
        seconds: time limit of a problem.
    """

    def __init__(self, mixture: EnvironmentMixture, workers: int, seconds: float) -> None:
        self._pool = SandboxPool(mixture, workers)
        self._seconds = seconds
        self._started: dict[tuple[str, int, int, int | None], Future[Problem]] = {}

    def begin(self, task: str, item_seed: int, index: int, level: int | None = None) -> None:
        """Start to generate a problem that will be requested later."""
        key = task, item_seed, index, level
        self._started[key] = self._pool.call("problem", *key, seconds=self._seconds)

    def __call__(self, task: str, item_seed: int, index: int, level: int | None = None) -> Problem:
        """Wait for a problem and return it.

        Raises:
            GenerationFailed: the generator failed, took longer than the time limit, or its process died.
        """
        key = task, item_seed, index, level
        for _ in range(_TRIES):
            if key not in self._started:
                self.begin(*key)
            try:
                return self._started.pop(key).result()
            except TimeoutError as error:
                raise GenerationFailed("too_slow", f"no problem within {self._seconds:g} s") from error
            except WORKER_FAILURES:  # killed from outside or before it started: not the problem's fault, so try again
                continue
        raise GenerationFailed("raised", f"its process died {_TRIES} times")

    def verify_all(self, answered: Sequence[tuple[Problem, str]]) -> list[float | str]:
        """`EnvironmentMixture.verify_all` in workers; "too_slow" or "killed_its_process" for an answer where that is so."""
        calls = [self._pool.call("verify_all", [each], seconds=self._seconds) for each in answered]
        return [_outcome(call) for call in calls]

    def forget(self) -> None:
        """Cancel the problems that were started and not requested."""
        while self._started:
            self._started.popitem()[1].cancel()

    def close(self) -> None:
        """Stop the processes."""
        self.forget()
        self._pool.close()


def _outcome(call: Future[list[float | str]]) -> float | str:
    try:
        return call.result()[0]
    except TimeoutError:
        return "too_slow"
    except WORKER_FAILURES:
        return "killed_its_process"


def prompts_from(stream: PromptStream, slot: int, ahead: int) -> Generator[Prompt]:
    """The stream's prompts from `slot` on, without end.

    Args:
        stream: the prompts.
        slot: the first slot.
        ahead: number of slots whose first candidates are generated ahead, if `ProblemWorkers` generate the stream's problems.
    """
    workers = stream.problem if isinstance(stream.problem, ProblemWorkers) else None
    started = slot
    try:
        for k in count(slot):
            while workers and started < k + ahead:
                workers.begin(*stream.candidate(started))
                started += 1
            yield stream[k]
    finally:
        if workers:
            workers.forget()


def prompts_at(stream: PromptStream, slots: Sequence[int]) -> list[Prompt]:
    """The stream's prompts of some slots, generated side by side if `ProblemWorkers` generate its problems."""
    if isinstance(stream.problem, ProblemWorkers):
        for slot in slots:
            stream.problem.begin(*stream.candidate(slot))
    return [stream[slot] for slot in slots]
