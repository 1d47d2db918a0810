"""Do many runs, some at a time, each in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO

from machine import process_environment

from ablation.experiments import Run
from ablation.progress import Progress


class Runner:
    """Starts the runs' processes and waits for their results.

    Args:
        folder: folder of the results.
        progress: told of every start, evaluation and end.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopping = False
        self._lock = threading.Lock()

    def do(self, runs: Sequence[Run], jobs: int) -> int:
        """Do all runs, `jobs` at a time; returns the number that failed. Any interruption ends the processes first."""
        with ThreadPoolExecutor(jobs) as pool:
            try:
                done = [pool.submit(self._do_one, run) for run in runs]
                return sum(not future.result() for future in as_completed(done))
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)
                raise

    def _do_one(self, run: Run) -> bool:
        """Whether the run has left a result."""
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
            process = self._start(run, stderr)
            if process is None:
                return False
            self.progress.started(run)
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    self.progress.evaluated(run, json.loads(line))
            process.wait()
            if run.file(self.folder).exists():  # the status tells less: Lightning ends with 0 after SIGTERM
                self.progress.finished(run)
                return True
            stderr.seek(0)
            lines = stderr.read().strip().splitlines()
            if not self._stopping:
                self.progress.failed(run, lines[-1] if lines else f"ended with status {process.returncode}")
            return False

    def _start(self, run: Run, stderr: IO[str]) -> subprocess.Popen[str] | None:
        """A run's process; None if all are to end. It has its own session, so that Ctrl-C reaches this process only."""
        command = [sys.executable, "-m", "ablation.run", "--settings", json.dumps(run.settings)]
        with self._lock:
            if self._stopping:
                return None
            process = subprocess.Popen(
                [*command, "--out", str(run.file(self.folder))],
                env=process_environment(run.settings["threads"])
                | {"PYTHONHASHSEED": "0"},  # on which some tasks' problems depend
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
            self._processes.add(process)
            return process

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._processes:
                process.terminate()  # does nothing to one that has ended already
