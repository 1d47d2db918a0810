"""A stand-in for the hub's API, as far as a push goes, on this machine alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml

TOKEN = "hf_secret"
LARGE = (".safetensors", ".png")


@dataclass
class Stored:
    """A repository of the stand-in."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors lfs\n"})
    messages: list[str] = field(default_factory=list)

    def sha(self) -> str:
        return f"{len(self.messages):040x}"

    def tags(self) -> list[str]:
        parts = self.files.get("README.md", b"").decode().split("---\n")
        return yaml.safe_load(parts[1]).get("tags", []) if len(parts) > 2 else []


@dataclass
class Hub:
    """What the stand-in holds and was asked.

    Attributes:
        repositories: by owner/name.
        large: large files by SHA-256, as they arrived.
        requests: method and path of each.
        refuse: path's part to the status with which such requests are answered.
        breaks_after: large files that are taken before the connection breaks; None: all.
    """

    repositories: dict[str, Stored] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)
    breaks_after: int | None = None
    url: str = ""

    def uploads(self) -> int:
        return sum(method == "PUT" for method, _ in self.requests)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port of this machine."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Print nothing."""

    def _reply(self, status: int, value: Any = None, **headers: str) -> None:
        body = json.dumps(value if value is not None else {}).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def _begin(self) -> bytes | None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, self.path))
        for part, status in self.hub.refuse.items():
            if part in self.path:
                self._reply(status, {"error": "refused"})
                return None
        if self.command != "PUT" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._reply(401, X_Error_Message="Invalid credentials in Authorization header")
            return None
        return body

    def do_GET(self) -> None:
        if self._begin() is None:
            return
        name = self.path.removeprefix("/api/models/").partition("/revision/")[0]
        if (found := self.hub.repositories.get(name)) is None:
            return self._reply(404, X_Error_Code="RepoNotFound")
        siblings = [{"rfilename": file} for file in found.files]
        self._reply(
            200, {"id": name, "sha": found.sha(), "private": found.private, "tags": found.tags(), "siblings": siblings}
        )

    def do_PUT(self) -> None:
        if (body := self._begin()) is None:
            return
        if self.hub.breaks_after is not None and len(self.hub.large) >= self.hub.breaks_after:
            return self._reply(400, {"error": "connection lost"})
        self.hub.large[hashlib.sha256(body).hexdigest()] = body
        self._reply(200)

    def do_POST(self) -> None:
        if (body := self._begin()) is None:
            return
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.hub.repositories[name] = Stored(private=asked["visibility"] == "private")
            return self._reply(200, {"url": f"{self.hub.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._reply(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            return self._reply(200, {"files": [self._mode(each) for each in json.loads(body)["files"]]})
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._reply(200, {"objects": [self._action(each) for each in json.loads(body)["objects"]]})
        self._commit(body)

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["path"].endswith(LARGE) else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _action(self, asked: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.hub.url}/large/{asked['oid']}", "header": {}}}
        return asked if asked["oid"] in self.hub.large else {**asked, "actions": upload}

    def _commit(self, body: bytes) -> None:
        name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        stored = self.hub.repositories[name]
        lines = list(map(json.loads, body.splitlines()))
        if lines[0]["value"].get("parentCommit") not in (None, stored.sha()):
            return self._reply(412, {"error": "A commit has happened since"})
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                stored.messages.append(value["summary"])
            elif line["key"] == "file":
                stored.files[value["path"]] = base64.b64decode(value["content"])
            else:
                stored.files[value["path"]] = self.hub.large[value["oid"]]
        self._reply(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{stored.sha()}", "commitOid": stored.sha()})
