"""`report --watch` beside a run, and its page asked for now and then."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

EVERY = 30.0
"""Seconds between two requests."""


class Watcher:
    """The server's process, and what became of the requests.

    Attributes:
        process: the server.
        pages: the requests that were answered by the page.
        refused: those that were answered otherwise, such as "a file is being written", with the reason.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.pages, self.refused = psutil.Process(process.pid), 0, list[str]()
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "report --watch does not say its address"
        self._url, self._stop = found[0], threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                with urllib.request.urlopen(self._url, timeout=60) as answer:
                    answer.read()
                self.pages += 1
            except (urllib.error.URLError, OSError) as error:
                self.refused.append(str(error))

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join()


@contextmanager
def watching(run: Path) -> Iterator[Watcher]:
    """Serve a run's page for as long as the context lasts; the run must have written something already."""
    command = [sys.executable, "-m", "rl_lightning", "report", str(run), "--watch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        watcher = Watcher(process)
        yield watcher
        watcher.stop()
    finally:
        process.kill()
        process.wait()
