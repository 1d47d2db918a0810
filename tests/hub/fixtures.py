"""The stand-in as a fixture, also for the tests of callbacks."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from tests.hub.stand_in import TOKEN, Hub, serving


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """huggingface_hub talks to the stand-in, with a token that it accepts, in plain HTTP."""
    with serving(Hub()) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served
