"""What the libraries say about choices that are made on purpose here, silenced; and a line while they load."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_EXPECTED = {
    # The user chooses data.num_workers.
    "lightning.pytorch.trainer.connectors.data_connector": ".*does not have many workers",
    # FixedEval evaluates during `fit`; Lightning's own validation loop gets no batches.
    "lightning.pytorch.utilities.data": "Total length of `list` across ranks is zero",
    # Lightning uses a deprecated function of torch, and PEFT one of transformers.
    "lightning.pytorch.utilities._pytree": r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "transformers.modeling_utils": "`is_gradient_checkpointing` is deprecated",
    # The policy stays in eval mode, because it must have no dropout.
    "lightning.pytorch.loops.fit_loop": r"Found \d+ module\(s\) in eval mode",
}
"""Warnings that no user can act on: the module they are attributed to, and a pattern for the message."""


def loading(what: str) -> None:
    """Say on a terminal that libraries are being loaded, which takes seconds; and be `quiet`. Nothing goes into files and pipes.

    Args:
        what: the libraries.
    """
    if sys.stderr.isatty():
        print(f"loading {what} …", file=sys.stderr, flush=True)
    quiet()


def quiet() -> None:
    """Silence the libraries' warnings about choices that are made on purpose here; all their other messages still appear."""
    from transformers.utils.logging import set_tqdm_hook

    for module, message in _EXPECTED.items():
        warnings.filterwarnings("ignore", message, module=module.replace(".", r"\.") + "$")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    # Under SLURM it says that Lightning puts the job back into the queue, where StopAtSignal has taken its signal over.
    logging.getLogger("lightning.pytorch.trainer.connectors.signal_connector").setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_no_offer)
    set_tqdm_hook(_no_loading_bar)


def only_errors() -> None:
    """Print nothing but errors, in a rank that is not the first."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def _no_offer(record: logging.LogRecord) -> bool:
    """Drop bitsandbytes' offer to download a faster CPU kernel."""
    return not record.msg.startswith("Failed to load CPU gemm_4bit_forward from kernels-community")


def _no_loading_bar(factory: Callable[..., Any], args: Sequence[Any], settings: Mapping[str, Any]) -> Any:
    """Show no progress bar for weights that are read from the disk or written to it; the bars of downloads stay."""
    local = settings.get("desc") in ("Loading weights", "Writing model shards")
    return factory(*args, **settings, **({"disable": True} if local else {}))
