"""Memory, files, threads and processes of a running process and all that it started, over the run's steps."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MEASURED = ("main_mb", "workers_mb", "loggers_mb", "files", "threads", "processes")
"""Resident memory of the trainer, its worker processes and wandb's, in MB; open files and threads of all of them; their number."""

_TAIL = 1 << 16
"""Bytes at the end of metrics.csv that hold its last row."""


@dataclass
class Watched:
    """A process and all that it started.

    Args:
        root: the process.
        kept: a file of JSON lines for the samples, which so outlive this process.

    Attributes:
        samples: the step at the time, each of MEASURED, and the processor seconds of all of them since the start.
        seen: every process of the tree so far, by its id.
    """

    root: psutil.Process
    kept: Path | None = None
    samples: list[dict[str, float]] = field(default_factory=list)
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    def look(self) -> None:
        """Remember the processes that there are."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.seen |= {each.pid: each for each in self.root.children(recursive=True)}

    def sample(self, step: int) -> None:
        """Add a sample; none once the process has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.look()
            now = dict.fromkeys((*MEASURED, "processor_s"), 0.0)
            for each in (self.root, *self.root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    _add(now, each, each.pid == self.root.pid)
            if self.root.status() != psutil.STATUS_ZOMBIE:
                self.samples.append({"step": float(step), **now})
                if self.kept is not None:
                    with self.kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(self.samples[-1]) + "\n")

    def left(self, seconds: float) -> list[psutil.Process]:
        """The processes that are still there `seconds` after their root has ended, which are stopped now."""
        _, alive = psutil.wait_procs(list(self.seen.values()), timeout=seconds)
        for each in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        return alive


def _add(now: dict[str, float], process: psutil.Process, is_main: bool) -> None:
    with process.oneshot():
        part = "main_mb" if is_main else "loggers_mb" if "wandb" in process.name() else "workers_mb"
        memory, files, threads = process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()
        processor = sum(process.cpu_times()[:4])  # with that of ended children, whom it has waited for
    now[part] += memory
    now["processor_s"] += processor
    now["files"] += files
    now["threads"] += threads
    now["processes"] += 1


def last_step(run: Path) -> int:
    """The step of the last complete row of metrics.csv; -1 if there is none."""
    try:
        with (run / "metrics.csv").open("rb") as file:
            file.seek(max(file.seek(0, 2) - _TAIL, 0))
            rows = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return -1
    first = rows[-1].split(b",")[0] if rows else b""
    return int(first) if first.isdigit() else -1
