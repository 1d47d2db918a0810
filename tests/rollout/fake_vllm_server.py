"""A stand-in for vLLM's server: the stand-in for vLLM behind the parts of its HTTP interface that are used, with faults on demand.

Like vLLM it keeps what it has computed of a prompt by the name and the path of an adapter.
"""

from __future__ import annotations

import json
import math
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import torch

from tests.rollout.fake_vllm import Engine


class FakeServer(ThreadingHTTPServer):
    """Samples one row at a time.

    Args:
        model: the directory that it serves.
        faults: what goes wrong from now on: "old_adapter", "raw_logprobs", "nan", "minus_infinity", "raises", "dies", "hangs",
            "resets_once", "no_lora_updates", "blind", "short", "cut", "html".

    Attributes:
        asked: path and body of each request.
        held: completions but the first one after it was cleared wait for it.
        at_once, most_at_once: completions that are being waited for, now and so far.
    """

    daemon_threads, request_queue_size = True, 128

    def __init__(self, model: Path, *faults: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.faults, self.version, self.tokens = str(model), set(faults), "0.32.0", 1024
        self.engine = Engine({"model": self.root, "dtype": "float32", "max_num_seqs": 1}, set())
        self.adapters, self.caches = {}, defaultdict(dict)
        self.lock, self.asked, self.keys, self.held = threading.Lock(), [], [], threading.Event()
        self.held.set()
        self.over = threading.Event()
        self.counting, self.begun, self.at_once, self.most_at_once = threading.Condition(), 0, 0, 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self, path: str) -> list[dict]:
        return [body for asked, body in self.asked if asked == path]

    def end(self) -> None:
        self.held.set()
        self.over.set()
        self.shutdown()
        self.server_close()

    def load(self, body: dict) -> tuple[int, object]:
        name, path = body["lora_name"], body["lora_path"]
        if "no_lora_updates" in self.faults:
            return 404, {"detail": "Not Found"}
        if "blind" in self.faults or not Path(path).is_dir():
            return 404, error(f"Loading lora {name} failed: No adapter found for {path}", 404)
        assert name not in self.adapters
        with self.lock, torch.random.fork_rng():
            if "old_adapter" not in self.faults or not self.adapters:
                self.engine.add_lora(SimpleNamespace(id=name, path=path))
        self.adapters[name] = path
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body: dict) -> tuple[int, object]:
        if self.adapters.pop(body["lora_name"], None) is None:
            return 404, error(f"The lora adapter '{body['lora_name']}' cannot be found.", 404)
        return 200, "Success"

    def complete(self, body: dict) -> tuple[int, object]:
        if (name := body["model"]) not in self.adapters:
            return 404, error(f"The model `{name}` does not exist.", 404)
        if "raises" in self.faults:
            return 500, error("EngineCore encountered an issue.\nSee stack trace (above) for the root cause.", 500)
        if "hangs" in self.faults:
            self.over.wait(20)
        assert body["ignore_eos"]
        assert body["return_token_ids"]
        neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
        params = SimpleNamespace(**(neutral | body))
        with self.lock, torch.random.fork_rng():  # it runs in the trainer's process here
            self.engine.model = self.engine.adapters.get(name) or next(iter(self.engine.adapters.values()))
            self.engine.cache = self.caches[name, self.adapters[name]]
            self.engine.raw = "raw_logprobs" in self.faults
            self.engine.add_request("0", {"prompt_token_ids": body["prompt"]}, params, None)
            while not (done := self.engine.step()):
                pass
        (only,) = done[0].outputs
        logps = [places[token].logprob for places, token in zip(only.logprobs, only.token_ids, strict=True)]
        if "nan" in self.faults:
            logps[-1] = None
        if "minus_infinity" in self.faults:
            logps[-1] = -9999.0
        if "cut" in self.faults:
            only.token_ids, logps, only.finish_reason = only.token_ids[:1], logps[:1], "length"
        assert all(logp is None or math.isfinite(logp) for logp in logps)  # JSON has no others
        choice = {"token_ids": only.token_ids, "logprobs": {"token_logprobs": logps}}
        return 200, {"choices": [choice | {"finish_reason": only.finish_reason}]}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        if "html" in self.server.faults:
            return self.answer(404, "<html>\n<title>404</title>\n</html>")
        if self.path == "/version":
            return self.answer(200, {"version": self.server.version})
        return self.answer(200, {"data": [{"id": "m", "root": self.server.root, "max_model_len": self.server.tokens}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        parts = {
            "/v1/load_lora_adapter": self.server.load,
            "/v1/unload_lora_adapter": self.server.unload,
            "/v1/completions": self.server.complete,
        }
        if self.path == "/v1/completions":
            if "dies" in self.server.faults:
                return None
            if "resets_once" in self.server.faults:
                self.server.faults.discard("resets_once")
                return None
            if self.count(1) > 1:
                self.server.held.wait()
        answer = parts[self.path](body)
        if self.path == "/v1/completions":
            self.count(-1)
        return self.answer(*answer)

    def count(self, change: int) -> int:
        """How many completions have begun since nothing was held."""
        with self.server.counting:
            self.server.begun = 0 if self.server.held.is_set() else self.server.begun + (change > 0)
            self.server.at_once += change
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            self.server.counting.notify_all()
            return self.server.begun

    def answer(self, status: int, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


def error(message: str, code: int) -> dict:
    return {"error": {"message": message, "type": "Error", "param": None, "code": code}}
