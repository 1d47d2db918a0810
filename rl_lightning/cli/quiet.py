"""What the libraries say about choices that are made on purpose here, silenced; and a line while they load."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Inside, libraries are imported, which takes seconds: said at once on a terminal, and in no file or pipe; and `quiet`.

    Python looks for garbage as often as many objects have been made, and libraries make half a million that stay. So it looks for
    none until they are loaded, and not among them afterwards.

    Args:
        what: the libraries.
    """
    if sys.stderr.isatty():
        print(f"loading {what} …", file=sys.stderr, flush=True)
    if "torch" in sys.modules:  # loaded before, in a Python that may have a model to free
        quiet()
        yield
        return
    gc.disable()
    try:
        quiet()
        yield
    finally:
        gc.freeze()
        gc.enable()


def quiet() -> None:
    """Silence the libraries' warnings about choices that are made on purpose here; all their other messages still appear."""
    for module, message in _EXPECTED.items():
        warnings.filterwarnings("ignore", message, module=module.replace(".", r"\.") + "$")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    # Under SLURM it says that Lightning puts the job back into the queue, where StopAtSignal has taken its signal over.
    logging.getLogger("lightning.pytorch.trainer.connectors.signal_connector").setLevel(logging.WARNING)

    from transformers.utils.logging import set_tqdm_hook  # now: warnings come at these imports

    from rl_lightning.policy.quiet_loading import no_local_bar

    set_tqdm_hook(no_local_bar)  # for an export's files too


def only_errors() -> None:
    """Print nothing but errors, in a rank that is not the first."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
