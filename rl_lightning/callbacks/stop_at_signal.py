"""Stop cleanly at Ctrl-C, SIGTERM or SIGUSR1: finish the step, and write a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from lightning.pytorch import Callback, Trainer

from rl_lightning.callbacks.live_panel import LivePanel

_MESSAGE = b"\nstopping: finishing this rollout, then writing a checkpoint; Ctrl-C again stops immediately\n"

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]  # Windows lacks the last


class StopAtSignal(Callback):
    """At the first SIGINT, SIGTERM or SIGUSR1 of any rank finish the step and end the run, so that AdapterCheckpoint writes a
    checkpoint. A second Ctrl-C stops immediately. Best put before other callbacks: then what they do at the start of training is
    covered too.

    SIGUSR1 is what a SLURM job asks for before its time limit (scripts/slurm.sbatch). Lightning would answer it by a checkpoint of
    another format in the middle of a step, and put the job back into the queue itself.

    Attributes:
        received: the signal's number; None if there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._handler: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread can handle signals

        def stop(number: int, _frame: Any) -> None:
            if self.received is not None:
                if number != signal.SIGINT:  # SLURM sends SIGTERM too where the step outlasts the time limit
                    return
                self._restore()
                raise KeyboardInterrupt
            self.received = number
            if pl_module.collective.world_size == 1 and trainer.global_step != trainer.max_steps:
                trainer.should_stop = pl_module.interrupted = True
            if not any(isinstance(each, LivePanel) and each.show_stopping() for each in trainer.callbacks):  # type: ignore[attr-defined]
                os.write(2, _MESSAGE)  # not print, which the signal may have interrupted

        self._handler = stop
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, stop)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == trainer.max_steps:  # the run has ended by itself, and writes its results
            self.received, pl_module.interrupted = None, False
        elif pl_module.collective.any(self.received is not None):  # all ranks stop after the same step
            trainer.should_stop = pl_module.interrupted = True
            self.received = max(pl_module.collective.gather(self.received or 0))

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if not pl_module.interrupted:
            self.received = None
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) is self._handler:  # else Lightning has put back what was there before its own
                signal.signal(number, handler)
        self._before = {}
