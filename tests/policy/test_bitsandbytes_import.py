"""bitsandbytes is imported without torch's compiler, and its functions are compiled when they are called."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.policy import bitsandbytes_import


@pytest.mark.parametrize("settings", [{}, {"dynamic": False}])
def test_a_function_is_compiled_once_and_not_before_it_is_called(monkeypatch, settings):
    compiled = []

    def compile_(function, **given):
        compiled.append(given)
        return lambda *args: ("compiled", function(*args))

    monkeypatch.setattr(bitsandbytes_import, "_compile", compile_)
    late = bitsandbytes_import._compiled_when_called
    double = late(**settings)(lambda number: 2 * number) if settings else late(lambda number: 2 * number)
    assert compiled == []
    assert [double(3), double(4)] == [("compiled", 6), ("compiled", 8)]
    assert compiled == [settings]


def test_torch_has_its_own_compile_afterwards():
    assert torch.compile is not bitsandbytes_import._compiled_when_called
