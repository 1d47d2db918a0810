"""Write checkpoint directories, verify that they are intact, and find the one to resume from.

checkpoint-100/
  adapter_model.safetensors, adapter_config.json   what PEFT reads; or where all weights are trained
  model.safetensors, config.json, tokenizer.json … what transformers reads; resuming reads the float32 weights from it too
  trainer.ckpt                                     what resuming needs besides: optimizer, step, RNG states, problem stream
  README.md                                        the model card
  checksums.json                                   SHA-256 of every other file but the card; written last
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from rl_lightning.checkpointing.atomic_files import patiently
from rl_lightning.types import UserError

log = logging.getLogger(__name__)

STATE_FILE, CHECKSUMS = "trainer.ckpt", "checksums.json"

_MAY_CHANGE = ("README.md",)
"""Files that a user may edit, so they have no checksum."""

NAMES = ("last", "auto", "best")
"""Words for one of a run's checkpoints: the newest intact one (`last`, `auto`), or the one that was evaluated best."""

_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoint_step(path: Path) -> int:
    """Return N of a directory named checkpoint-N."""
    return int(path.name.removeprefix("checkpoint-"))


def checkpoints(root: Path) -> list[Path]:
    """Return the checkpoint directories of a run, intact or damaged, lowest step first."""
    found = (p for p in root.glob("checkpoint-*") if _NAME.fullmatch(p.name) and p.is_dir())
    return sorted(found, key=checkpoint_step)


def intact_checkpoints(root: Path) -> list[Path]:
    """Return those whose files are all as they were written, lowest step first."""
    return [path for path in checkpoints(root) if damage(path) is None]


def best_checkpoint(root: Path) -> Path | None:
    """Return the intact checkpoint with the best accuracy in the fixed evaluation; of several that are equal the earliest.

    Only evaluations at a checkpoint's own step count, and only those on the problems of the newest one; None if there is none.

    Raises:
        UserError: a file of an evaluation is damaged.
    """
    evaluated = [
        (path, *found) for path in intact_checkpoints(root) if (found := _evaluation(root, checkpoint_step(path)))
    ]
    same = [(path, accuracy) for path, suite, accuracy in evaluated if suite == evaluated[-1][1]]
    return max(same, key=lambda each: each[1])[0] if same else None  # max takes the first of equal ones


def _evaluation(root: Path, step: int) -> tuple[str, float] | None:
    """The suite of the evaluation at a step, and its accuracy."""
    file = root / "eval_results" / f"eval_step_{step}.json"
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return str(found["suite"]), float(found["overall"]["accuracy"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not an evaluation of rl_lightning ({error}); move it away") from error


def write_checkpoint(final: Path, write: Callable[[Path], None]) -> None:
    """Write a checkpoint directory atomically: fill it under a temporary name, flush it to the disk, and rename it.

    Args:
        final: the directory's final path.
        write: called with the temporary directory, to write the files.

    Raises:
        OSError, RuntimeError: whatever `write` raises; the temporary directory is removed.
    """
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed while it wrote
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir()) if path.name not in _MAY_CHANGE}
        (temporary / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
        for path in temporary.iterdir():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    patiently(lambda: temporary.rename(final))
    _flush_directory(final.parent)


def remove_checkpoint(directory: Path) -> None:
    """Remove a checkpoint at once or not at all, as another sees it; one that a program holds open stays, with a line.

    What an earlier removal has left of others goes too.
    """
    removed = directory.with_name(f".{directory.name}.removed")
    try:
        patiently(lambda: directory.rename(removed))
    except PermissionError as error:
        log.warning(f"{directory}: not removed, another program holds it open ({error.strerror})")
    for left in directory.parent.glob(".checkpoint-*.removed"):
        shutil.rmtree(left, ignore_errors=True)


def damage(directory: Path) -> str | None:
    """Say what is wrong with a checkpoint directory; None if every file is as it was written."""
    try:
        sums = dict(json.loads((directory / CHECKSUMS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        return f"{CHECKSUMS} cannot be read ({type(error).__name__}), so rl_lightning did not finish writing it"
    for name in sorted({STATE_FILE, *sums}):
        if not (directory / name).is_file():
            return f"{name} is missing"
        try:
            found = _sha256(directory / name)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if found != sums.get(name):
            return f"{name} is not as it was written (truncated or changed)"
    return None


def resolve_checkpoint(name: str, root: Path) -> Path:
    """Return the file that Lightning loads from an intact checkpoint.

    Args:
        name: one of NAMES, a checkpoint directory, or the file itself. The words skip damaged checkpoints, `last` with a warning.
        root: the run directory, in which `last` is looked for.

    Raises:
        UserError: there is no such checkpoint, or the one that was named is damaged; the message names those there are.
    """
    found = checkpoints(root)
    if name in ("last", "auto"):
        for path in reversed(found):
            if (wrong := damage(path)) is None:
                return path / STATE_FILE
            log.warning(f"skipping {path}: {wrong}")
        raise UserError(
            f"ckpt_path: no intact checkpoint in {root}; leave --ckpt_path out to start there, or name another"
        )
    if name == "best":
        if (best := best_checkpoint(root)) is None:
            raise UserError(
                f"ckpt_path: no intact checkpoint in {root} has an evaluation of its step; name another, or `last`"
            )
        return best / STATE_FILE
    path = Path(name).expanduser()
    directory = path if path.is_dir() else path.parent
    if not (directory / STATE_FILE).is_file() or (path != directory and path.name != STATE_FILE):
        have = ", ".join(str(p) for p in found) or f"none in {root}"
        raise UserError(f"ckpt_path: {name!r} is not a checkpoint directory or `last` or `best`; there are: {have}")
    if (wrong := damage(directory)) is not None:
        intact = ", ".join(str(p) for p in found if p != directory and damage(p) is None) or "none"
        raise UserError(f"ckpt_path: {directory} is damaged: {wrong}; intact ones in {root}: {intact}")
    return directory / STATE_FILE


def find_checkpoint(path: Path) -> Path:
    """Return the directory of a checkpoint; of a run its newest intact one, and of RUN/best or RUN/last that one.

    Raises:
        UserError: there is none, or the one that was named is damaged.
    """
    path = Path(resolve_word(str(path)))
    of_run = _is_run(path)
    if not of_run and path.name != STATE_FILE and not (path / STATE_FILE).is_file():
        what = "is neither a run with checkpoints nor" if path.exists() else "does not exist; name a run, or"
        raise UserError(f"{str(path)!r} is not a checkpoint directory: it {what} one of its checkpoints")
    return resolve_checkpoint("last" if of_run else str(path), path if of_run else path.parent).parent


def resolve_word(name: str) -> str:
    """Return the checkpoint that RUN/best or RUN/last means, and any other name as it is.

    Raises:
        UserError: the run has no such checkpoint.
    """
    path = Path(name).expanduser()
    if path.name not in NAMES or path.exists() or not _is_run(path.parent):
        return name
    return str(resolve_checkpoint(path.name, path.parent).parent)


def _is_run(path: Path) -> bool:
    return path.is_dir() and (any(path.glob("checkpoint-*")) or (path / "config.yaml").is_file())


def _flush_directory(directory: Path) -> None:
    """Make sure that the new name is on the disk before older checkpoints are deleted."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
