"""No progress bars of files that are on the disk already, while a model is loaded; the bars of downloads stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from transformers.utils.logging import set_tqdm_hook


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Inside, transformers shows no bar for weights that it reads or writes."""
    before = set_tqdm_hook(no_local_bar)
    try:
        yield
    finally:
        set_tqdm_hook(before)


def no_local_bar(factory: Callable[..., Any], args: Sequence[Any], settings: Mapping[str, Any]) -> Any:
    """Make a progress bar, disabled if it is for weights that are read from the disk or written to it."""
    local = settings.get("desc") in ("Loading weights", "Writing model shards")
    return factory(*args, **settings, **({"disable": True} if local else {}))
