"""A clock that runs while a policy is trained, and is paused while it is evaluated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingClock:
    """Runs from the end of the first pause on.

    Attributes:
        training: seconds up to the end of the last step, without pauses.
        paused: seconds of all pauses.
    """

    def __init__(self) -> None:
        self.training = self.paused = 0.0
        self._since = time.perf_counter()

    def step_ended(self) -> None:
        """Add the time since the last step or pause to `training`."""
        now = time.perf_counter()
        self.training += now - self._since
        self._since = now

    @contextmanager
    def pause(self) -> Iterator[None]:
        """The time within does not count; to be entered right after `step_ended`, or before the first step."""
        began = time.perf_counter()
        yield
        self._since = time.perf_counter()
        self.paused += self._since - began
