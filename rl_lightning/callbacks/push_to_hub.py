"""Push a run's checkpoints to the hub while it trains, in the background; a failed push never ends the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from huggingface_hub.utils import disable_progress_bars
from lightning.pytorch import Callback, Trainer

from rl_lightning.checkpointing.checkpoints import (
    CHECKSUMS,
    STATE_FILE,
    best_checkpoint,
    checkpoint_step,
    intact_checkpoints,
)
from rl_lightning.checkpointing.model_files import CONFIG_FILE
from rl_lightning.hub.pushing import Repository, address, look, push
from rl_lightning.types import UserError, first_line, require

log = logging.getLogger(__name__)

_LAST_SECONDS = 600.0
"""The longest that the end of a run waits for a push; huggingface_hub sets no limit."""


class PushToHub(Callback):
    """Push the checkpoint's adapter or model with its card, without what only resuming needs, to a repository of the Hugging Face
    hub: at the end of the run, and with `push_steps` during it too. A run that a signal stops is pushed when it is resumed.

    What is pushed are checkpoints, unverified; the command `export --push` pushes what is verified. Pushes run in a thread; one
    that fails is a warning, and the next one is tried all the same.

    Args:
        repo_id: owner/name; null: nothing is pushed.
        which: `last`, the newest checkpoint; or `best`, that with the best accuracy in the fixed evaluation, of those that are
            kept (`AdapterCheckpoint.keep_best` keeps it).
        push_steps: optimizer steps between pushes, which send the checkpoints that are there then; null: only at the end.
        private: whether only the owner sees the repository.

    Raises:
        UserError: `repo_id` is no owner/name.
    """

    def __init__(
        self,
        repo_id: str | None = None,
        which: Literal["last", "best"] = "last",
        push_steps: int | None = None,
        private: bool = True,
    ) -> None:
        require("PushToHub.which", which, which in ("last", "best"), "last or best")
        require("PushToHub.push_steps", push_steps, push_steps is None or push_steps >= 1, "at least 1, or null")
        self.repository = None if repo_id is None else Repository(repo_id, private)
        self.which, self.push_steps = which, push_steps
        self._pushed: Path | None = None
        self._thread: Thread | None = None
        self._due = False

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.repository is not None and pl_module.collective.rank == 0:
            disable_progress_bars()
            repository = self.repository
            self._in_background(lambda: look(repository))  # a wrong token is known now, and not after the training

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._step_before = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.push_steps is None or pl_module.collective.rank > 0:
            return
        if self._due:  # since the step before, whose checkpoint has been written at the beginning of this one
            self._push(Path(trainer.default_root_dir))
        self._due = trainer.global_step // self.push_steps > self._step_before // self.push_steps

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        # After on_train_end, in which the last checkpoint is written.
        if self.repository is None or pl_module.interrupted or pl_module.collective.rank > 0:
            return
        self._wait()
        self._push(Path(trainer.default_root_dir))
        self._wait()
        if self._pushed is not None:
            print(f"{self._pushed} is at {address(self.repository)}, {self.repository.visibility}")

    def _push(self, root: Path) -> None:
        """Begin to push the chosen checkpoint, unless it is there, or another push still runs."""
        if self.repository is None or (self._thread is not None and self._thread.is_alive()):
            return
        repository, newest = self.repository, intact_checkpoints(root)[-1:]
        try:
            chosen = best_checkpoint(root) if self.which == "best" else newest[0] if newest else None
        except UserError as error:
            log.warning(str(error))
            return
        if chosen is None:
            log.warning(f"push: no checkpoint in {root}{' has an evaluation of its step' if newest else ''} yet")
            return

        def work() -> None:
            push(repository, files_of_checkpoint(chosen), f"checkpoint of step {checkpoint_step(chosen)}")
            self._pushed = chosen

        if chosen != self._pushed:
            self._in_background(work)

    def _in_background(self, work: Callable[[], object]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # whatever a library raises: the run is worth more than the push
                log.warning(f"{first_line(error)}; the run is not affected")

        self._thread = Thread(target=guarded, name="push_to_hub", daemon=True)  # a hanging connection stops no exit
        self._thread.start()

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS)
            if self._thread.is_alive():
                log.warning(f"push_to_hub: a push has not ended after {_LAST_SECONDS:.0f} s; the run ends without it")


def files_of_checkpoint(checkpoint: Path) -> dict[str, Path | bytes]:
    """What others load of a checkpoint; of a base that is a directory of this machine only the last part is named."""
    paths = [path for path in sorted(checkpoint.iterdir()) if path.name not in (STATE_FILE, CHECKSUMS)]
    files: dict[str, Path | bytes] = {path.name: path for path in paths if path.is_file()}
    if CONFIG_FILE in files:
        config = json.loads((checkpoint / CONFIG_FILE).read_text(encoding="utf-8"))
        base = config.get("base_model_name_or_path")
        if base and Path(base).is_dir():
            files[CONFIG_FILE] = json.dumps(config | {"base_model_name_or_path": Path(base).name}, indent=2).encode()
    return files
