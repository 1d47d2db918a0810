"""Many runs, some at a time, each in a process of its own."""

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

from machine import environment

from laboratory.board import Board
from laboratory.courses import Run


class Crew:
    """Does runs.

    Args:
        folder: of the results.
        board: told what goes on.
    """

    def __init__(self, folder: Path, board: Board) -> None:
        self.folder, self.board = folder, board
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopping = False
        self._lock = threading.Lock()

    def work(self, runs: Sequence[Run], jobs: int) -> int:
        """Do all, `jobs` at a time; how many failed. Whatever breaks this off ends the processes first."""
        with ThreadPoolExecutor(jobs) as pool:
            try:
                done = [pool.submit(self._do, run) for run in runs]
                return sum(not future.result() for future in as_completed(done))
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)
                raise

    def _do(self, run: Run) -> bool:
        """Whether it came to its end."""
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
            process = self._begin(run, complaints)
            if process is None:
                return False
            self.board.begin(run)
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    self.board.evaluated(run, json.loads(line))
            process.wait()
            if run.file(self.folder).exists():  # the status tells less: Lightning ends with 0 after SIGTERM
                self.board.end(run)
                return True
            complaints.seek(0)
            said = complaints.read().strip().splitlines()
            if not self._stopping:
                self.board.failed(run, said[-1] if said else f"ended with status {process.returncode}")
            return False

    def _begin(self, run: Run, complaints: IO[str]) -> subprocess.Popen[str] | None:
        """Its process, None where all is to end. In a session of its own, so that Ctrl-C comes here alone."""
        words = [sys.executable, "-m", "laboratory.run", "--settings", json.dumps(run.settings)]
        with self._lock:
            if self._stopping:
                return None
            process = subprocess.Popen(
                [*words, "--out", str(run.file(self.folder))],
                env=environment(run.settings["threads"]) | {"PYTHONHASHSEED": "0"},  # some tasks' problems follow it
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                start_new_session=True,
            )
            self._processes.add(process)
            return process

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._processes:
                process.terminate()  # one that has ended already is left in peace
