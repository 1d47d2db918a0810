"""A vLLM server at a URL: what it serves, adapters that come and go, completions."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rl_lightning.rollout.vllm_core import is_too_old
from rl_lightning.rollout.vllm_http import HTTPClient, ServerError
from rl_lightning.rollout.vllm_requests import Finished, Request
from rl_lightning.types import UserError

log = logging.getLogger(__name__)

_ROWS = 256
"""Rows that are sent at once, where no setting says how many; the server decides how many of them decode at once."""

_LEAST = -9999.0
"""What vLLM's server writes for a log-prob of minus infinity, which JSON has not."""

_QUICK_SECONDS = 60.0
"""Time limit of questions that need no work."""

_AGAIN = "start the server again, or raise model.engine.rollout_seconds if it was only slow, and resume from the last checkpoint"


class Served:
    """A vLLM server that answers.

    Args:
        url: for messages.
        client: sends requests to it.
        directory: of adapters; the server sees it too.
        seconds: time limit of a rollout, and of a change of weights.
        command: what starts the server that is wanted.

    Raises:
        UserError: nothing answers there, or not a vLLM, or an old one; so do all methods if the server fails or hangs.
    """

    rows = _ROWS

    def __init__(self, url: str, client: HTTPClient, directory: Path, seconds: float, command: str) -> None:
        self.name, self.remedy = f"vLLM at {url}", f"start the server by: {command}"
        self._client, self._directory, self.seconds = client, directory, seconds
        self._adapter: tempfile.TemporaryDirectory[str] | None = None
        with self._one_line("cannot be used", self.remedy):
            version = json.loads(client.ask("/version", None, _QUICK_SECONDS))["version"]
            self.name = f"vLLM {version} at {url}"
            if is_too_old(version):
                raise ServerError("it is too old, 0.32 has been tried")
            served = json.loads(client.ask("/v1/models", None, _QUICK_SECONDS))["data"][0]
            self.model, self.tokens = Path(served["root"]).name, int(served["max_model_len"])

    def refuse_other(self, model: str, tokens: int) -> None:
        """Refuse a server of another model, or for shorter sequences.

        Args:
            model: name of the directory that it must serve.
            tokens: of the longest sequence.

        Raises:
            UserError: it is another.
        """
        with self._one_line("cannot be used", self.remedy):
            if self.model != model:
                raise ServerError(f"it serves {self.model}, and {model} is wanted")
            if self.tokens < tokens:
                raise ServerError(f"its --max-model-len is {self.tokens}, and sequences have up to {tokens} tokens")

    def load_adapter(self, save: Callable[[Path], None]) -> None:
        """Sample with a PEFT adapter from here on, and forget the one before. Each has a name and a path of its own: vLLM finds
        cached keys by them.

        Args:
            save: writes it into a directory.
        """
        before = self._adapter
        new = tempfile.TemporaryDirectory(prefix="adapter_", dir=self._directory)
        save(Path(new.name))
        with self._one_line(
            f"does not take an adapter from {new.name}", f"it must see that directory, as the same user; {self.remedy}"
        ):
            body = {"lora_name": Path(new.name).name, "lora_path": new.name}
            self._client.ask("/v1/load_lora_adapter", body, self.seconds)
        self._adapter = new
        if before is not None:
            with self._one_line("does not let go of an adapter", _AGAIN):
                self._unload(before)

    def _unload(self, adapter: tempfile.TemporaryDirectory[str]) -> None:
        adapter.cleanup()
        self._client.ask("/v1/unload_lora_adapter", {"lora_name": Path(adapter.name).name}, _QUICK_SECONDS)

    def generate(self, requests: Sequence[Request], rows_at_once: int) -> Iterator[Finished]:
        """Sample completions; yields each as it ends.

        Args:
            requests: one a row.
            rows_at_once: sequences at once, at most.
        """
        assert self._adapter is not None, "load_adapter comes first"
        shared = {
            "model": Path(self._adapter.name).name,
            "logprobs": 0,  # of the sampled token alone
            "ignore_eos": True,  # only our end tokens end a row; the model's are among them
            "repetition_penalty": 1.0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        bodies = [{"prompt": request.prompt, **request.params, **shared} for request in requests]
        with self._one_line("fails in a rollout", _AGAIN):
            for row, text in self._client.ask_all("/v1/completions", bodies, rows_at_once, self.seconds):
                yield _finished(row, requests[row].params, json.loads(text))

    def close(self) -> None:
        """Let the server forget the adapter; if it does not answer any more, a warning says so."""
        if self._adapter is None:
            return
        try:
            self._unload(self._adapter)
        except ServerError as error:
            log.warning(f"model.engine: {self.name} does not let go of the last adapter: {error}")

    @contextmanager
    def _one_line(self, what: str, remedy: str) -> Iterator[None]:
        """Whatever goes wrong in an exchange with the server is one line."""
        try:
            yield
        except ServerError as error:
            raise UserError(f"model.engine: {self.name} {what}: {error}; {remedy}") from error
        except (ValueError, LookupError, TypeError) as error:
            reason = f"it does not answer as vLLM does ({type(error).__name__}: {error})"
            raise UserError(f"model.engine: {self.name} {what}: {reason}; {remedy}") from error


def _finished(row: int, params: dict[str, Any], answer: dict[str, Any]) -> Finished:
    """The completion in an answer. A server that ends a row for a reason of its own is refused, because nobody would notice."""
    (choice,) = answer["choices"]
    tokens, found = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    ended = bool(tokens) and tokens[-1] in params["stop_token_ids"]
    if len(tokens) != len(found) or not (ended or len(tokens) == params["max_tokens"]):
        reason = choice["finish_reason"]
        raise ServerError(f"a row ended with {reason!r} after {len(tokens)} of {params['max_tokens']} tokens")
    logps = [math.nan if logp is None else -math.inf if logp <= _LEAST else logp for logp in found]
    return Finished(row, tokens, logps, ended)
