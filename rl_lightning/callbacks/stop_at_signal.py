"""Ctrl-C and SIGTERM end a run as its last step would: whole, with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from lightning.pytorch import Callback, Trainer

_SAID = b"\nstopping: this step is finished and a checkpoint written; Ctrl-C again stops at once\n"


class StopAtSignal(Callback):
    """At the first SIGINT or SIGTERM finish the step and let the run end; AdapterCheckpoint then writes a checkpoint. A second
    Ctrl-C stops at once. Put it before other callbacks: what they do at the start is covered then too.

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
            if trainer.global_step != trainer.max_steps:  # else the run is over by itself, and writes its figures
                trainer.should_stop = pl_module.interrupted = True
            os.write(2, _SAID)  # print may be what the signal has interrupted

        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, stop)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == trainer.max_steps:
            self.received, pl_module.interrupted = None, False

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if not pl_module.interrupted:
            self.received = None
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
