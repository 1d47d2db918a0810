"""Serve the page on this machine alone, made again when a run has written something."""

from __future__ import annotations

import errno
import hashlib
import html
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rl_lightning.report.page import page
from rl_lightning.report.run_files import read_runs
from rl_lightning.types import UserError

HOST = "127.0.0.1"
PORT = 8642
"""The first choice, so that a bookmark or a tunnel stays good; where it is taken, any free one."""
_PARTS = ("*", "eval_results/*", "rollouts/*")


def state(paths: list[Path]) -> str:
    """What identifies the runs' files as they are now: it changes when one is written, and only then."""
    marks = []
    for path in sorted({file for run in paths for part in _PARTS for file in run.glob(part)}):
        try:
            stat = path.stat()
        except FileNotFoundError:  # renamed since it was listed
            continue
        if path.is_file() and not path.name.startswith(".") and path.name not in ("report.html", "learning_curve.png"):
            marks.append(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}")
    return hashlib.blake2b("\1".join(marks).encode(), digest_size=8).hexdigest()


class PageServer(ThreadingHTTPServer):
    """`/` is the page, `/state` what it is a page of.

    Args:
        paths: run directories.
        port: 0 takes any free one.
    """

    daemon_threads = True

    def __init__(self, paths: list[Path], port: int = PORT) -> None:
        self.paths, self._lock = paths, threading.Lock()
        self._made: tuple[str, str] | None = None
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks for this machine's name, which may take seconds
        self.server_name, self.server_port = HOST, self.server_address[1]

    def page(self) -> str:
        """The page of the runs as they are; made once for each state."""
        with self._lock:
            now = state(self.paths)
            if self._made is None or self._made[0] != now:
                self._made = (now, page(read_runs(self.paths), watch=now))
            return self._made[1]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        # Another site's page can make a browser ask this server by a name of its own that leads here; it gets nothing.
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            self._answer(403, "text/plain", "Ask for 127.0.0.1 or localhost.")
        elif self.path == "/state":
            self._answer(200, "text/plain", state(self.server.paths))
        elif self.path != "/":
            self._answer(404, "text/plain", "There is only /.")
        else:
            try:
                self._answer(200, "text/html", self.server.page())
            except UserError as error:  # a file as it is being written, or one that is damaged: say so, and try again
                again = (
                    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="3"><title>report</title>'
                )
                self._answer(503, "text/html", f"{again}<p>{html.escape(str(error))}</p>")

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:  # the reader has gone, as a reload does
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page asks every few seconds."""


def serve(paths: list[Path]) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: a path that is no run directory.
    """
    read_runs(paths)  # say what is wrong with them now, not in the browser
    try:
        server = PageServer(paths)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        server = PageServer(paths, 0)
    with server:
        print(f"http://{HOST}:{server.server_port}/ shows the page and keeps it new; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
