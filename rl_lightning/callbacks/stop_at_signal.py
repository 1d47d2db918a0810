"""Ctrl-C and SIGTERM end a run as its last step would: whole, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from typing import Any

from lightning.pytorch import Callback, Trainer


class StopAtSignal(Callback):
    """At the first SIGINT or SIGTERM finish the step and let the run end; AdapterCheckpoint then writes a checkpoint. A second
    Ctrl-C stops at once.

    Attributes:
        received: the signal's number, None where none came.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signals are the main thread's

        def stop(number: int, _frame: Any) -> None:
            if self.received is not None:
                self._restore()
                raise KeyboardInterrupt
            self.received = number
            trainer.should_stop = pl_module.interrupted = True
            print("\nstopping: this step is finished and a checkpoint written; Ctrl-C again stops at once", flush=True)

        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, stop)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
