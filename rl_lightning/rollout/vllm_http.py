"""Requests to a server, many at once, each with one line for whatever goes wrong; by the standard library."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

from rl_lightning.types import first_line, require

_CONNECT_SECONDS = 10.0
"""Time limit of a connection, whatever is asked over it."""

_AGAIN_SECONDS = 1.0
"""A request whose connection is lost is sent once more after this time: it has its own seed, so it gets the same answer."""

_LONGEST_MESSAGE = 300
"""Characters of a server's message that are shown."""


class ServerError(Exception):
    """There is no answer within the time limit, or it is an error, or not what was expected."""


class LostError(ServerError):
    """Nothing listens there, or the connection was lost."""


class HTTPClient:
    """Sends JSON to a server and reads its answers. `VLLM_API_KEY` is sent as its key, which vLLM's own client and server read too.

    Args:
        url: http or https, a host, optionally a port and a path that all others are below.

    Raises:
        UserError: it is not such a URL.
    """

    def __init__(self, url: str) -> None:
        found = re.fullmatch(r"(https?)://([\w.-]+|\[[\da-fA-F:]+\])(?::(\d{1,5}))?(/[^?#\s]*)?", url)
        require("model.engine.url", url, found is not None, "a URL such as http://127.0.0.1:8000")
        assert found is not None
        scheme, host, port, path = found.groups()
        self.host, self.path, self.tls = host.strip("[]"), (path or "").rstrip("/"), scheme == "https"
        self.port = int(port or (443 if self.tls else 80))
        require("model.engine.url: port", self.port, 1 <= self.port <= 65535, "1 to 65535")
        key = os.environ.get("VLLM_API_KEY")
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._open, self._lock, self._ended = set[socket.socket](), threading.Lock(), False

    def ask(self, path: str, body: dict[str, Any] | None, seconds: float) -> str:
        """The text of an answer: of GET, or with a body of POST.

        Args:
            path: of the URL.
            body: sent as JSON.
            seconds: time limit.

        Raises:
            ServerError: there is no answer, or it is an error.
        """
        connection = (HTTPSConnection if self.tls else HTTPConnection)(self.host, self.port, timeout=_CONNECT_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            raise LostError(f"no connection: {first_line(error)}") from error
        connected = connection.sock
        try:
            connected.settimeout(seconds)
            self._begin(connected)
            content = json.dumps(body) if body else None
            connection.request("POST" if body else "GET", self.path + path, content, self._headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except TimeoutError as error:
            raise ServerError(f"no answer after {seconds:.4g} seconds") from error
        except (OSError, HTTPException) as error:
            raise LostError(f"the connection is lost: {first_line(error)}") from error
        finally:
            with self._lock:
                self._open.discard(connected)
            connection.close()
        if response.status != 200:
            raise ServerError(f"HTTP {response.status}: {_message(text)}")
        return text

    def _begin(self, connected: socket.socket) -> None:
        with self._lock:
            if self._ended:
                raise ConnectionAbortedError("the rollout has ended")
            self._open.add(connected)

    def ask_all(
        self, path: str, bodies: Sequence[dict[str, Any]], at_once: int, seconds: float
    ) -> Iterator[tuple[int, str]]:
        """The number and the answer of each request, in the order in which they come. If one fails, or the caller gives up, the
        others' connections are closed, by which vLLM stops to work on them.

        Args:
            path: of the URL.
            bodies: sent as JSON.
            at_once: connections at once, at most.
            seconds: time limit of all.

        Raises:
            ServerError: see `ask`; a connection was lost twice, or the time is over.
        """
        pool = ThreadPoolExecutor(at_once, "vllm_server")
        numbers = {pool.submit(self._ask_twice, path, body, seconds + 1): number for number, body in enumerate(bodies)}
        try:
            for future in as_completed(numbers, seconds):
                yield numbers[future], future.result()
        except TimeoutError as error:
            raise ServerError(f"it has not ended after {seconds:.4g} seconds") from error
        finally:
            self._end()
            pool.shutdown(cancel_futures=True)
            self._ended = False

    def _ask_twice(self, path: str, body: dict[str, Any], seconds: float) -> str:
        try:
            return self.ask(path, body, seconds)
        except LostError:
            if self._ended:
                raise
        time.sleep(_AGAIN_SECONDS)
        return self.ask(path, body, seconds)

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            for connected in self._open:
                with suppress(OSError):  # the server has closed it already
                    connected.shutdown(socket.SHUT_RDWR)
            self._open.clear()


def _message(text: str) -> str:
    """What an error's answer says, in one line: of JSON by OpenAI's or FastAPI's convention the message."""
    try:
        found = json.loads(text)
        message = found["error"]["message"] if "error" in found else found["detail"]
    except (ValueError, KeyError, TypeError):
        message = text
    return " ".join(str(message).split())[:_LONGEST_MESSAGE] or "no message"
