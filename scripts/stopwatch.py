"""A clock that runs while a policy is trained, and stands still while it is evaluated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from the end of the first pause on.

    Attributes:
        training: seconds up to the last lap, without pauses.
        paused: seconds of all pauses.
    """

    def __init__(self) -> None:
        self.training = self.paused = 0.0
        self._since = time.perf_counter()

    def lap(self) -> None:
        """A step has ended."""
        now = time.perf_counter()
        self.training += now - self._since
        self._since = now

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What is done within does not count; to begin right after a lap, or before the first step."""
        began = time.perf_counter()
        yield
        self._since = time.perf_counter()
        self.paused += self._since - began
