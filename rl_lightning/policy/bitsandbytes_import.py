"""Import bitsandbytes, which PEFT imports in every run, without torch's compiler.

bitsandbytes gives some functions to `torch.compile` when it is imported, for devices that it has no kernels for. That loads the
compiler, which takes longer than all else that PEFT imports, for functions that hardly any run calls.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

import torch


def _compiled_when_called(function: Callable[..., Any] | None = None, **settings: Any) -> Callable[..., Any]:
    """`torch.compile`, but at the first call."""
    if function is None:
        return partial(_compiled_when_called, **settings)
    compiled = cache(lambda: _compile(function, **settings))

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        return compiled()(*args, **named)

    return call


_compile: Callable[..., Any] = torch.compile
if "bitsandbytes" not in sys.modules:
    torch.compile = _compiled_when_called  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    finally:
        torch.compile = _compile
