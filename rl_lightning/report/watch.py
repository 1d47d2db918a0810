"""Serve the page to this machine only, and rebuild it when a run has written something."""

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
"""The preferred port, so that bookmarks and tunnels keep working; if it is taken, any free one is used."""
_PATTERNS = ("*", "eval_results/*", "rollouts/*")


def state(paths: list[Path]) -> str:
    """Return a hash of names, sizes and times of the runs' files; it changes when one is written, and only then."""
    marks = []
    for path in sorted({file for run in paths for pattern in _PATTERNS for file in run.glob(pattern)}):
        try:
            stat = path.stat()
        except FileNotFoundError:  # renamed after it was listed
            continue
        if path.is_file() and not path.name.startswith(".") and path.name not in ("report.html", "learning_curve.png"):
            marks.append(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}")
    return hashlib.blake2b("\1".join(marks).encode(), digest_size=8).hexdigest()


class PageServer(ThreadingHTTPServer):
    """Server of `/`, the page, and `/state`, which identifies the state of the runs' files.

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
        socketserver.TCPServer.server_bind(self)  # HTTPServer's looks up this machine's name, which may take seconds
        self.server_name, self.server_port = HOST, self.server_address[1]

    def page(self) -> str:
        """Return the page of the runs as they are now; it is built once for each state."""
        with self._lock:
            now = state(self.paths)
            if self._made is None or self._made[0] != now:
                self._made = (now, page(read_runs(self.paths), watch=now))
            return self._made[1]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        # DNS rebinding: another site's page could reach this server through its own host name that resolves to 127.0.0.1.
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            self._answer(403, "text/plain", "Ask for 127.0.0.1 or localhost.")
        elif self.path == "/state":
            self._answer(200, "text/plain", state(self.server.paths))
        elif self.path != "/":
            self._answer(404, "text/plain", "There is only /.")
        else:
            try:
                self._answer(200, "text/html", self.server.page())
            except UserError as error:  # a file is being written, or is damaged: say so, and try again
                reload = (
                    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="3"><title>report</title>'
                )
                self._answer(503, "text/html", f"{reload}<p>{html.escape(str(error))}</p>")

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
        except ConnectionError:  # the browser closed the connection, for instance to reload
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the page asks every few seconds."""


def serve(paths: list[Path]) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: a path is not a run directory.
    """
    read_runs(paths)  # report mistakes now, not in the browser
    try:
        server = PageServer(paths)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        server = PageServer(paths, 0)
    with server:
        print(
            f"http://{HOST}:{server.server_port}/ shows the page and keeps it up to date; Ctrl-C stops the server",
            flush=True,
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
