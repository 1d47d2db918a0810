"""What belongs to the whole process, and a problem must neither find as another one left it, nor change."""

from __future__ import annotations

import decimal
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from reasoning_gym.code.codeio import CodeIODataset

from rl_lightning.sandbox.lock_down import refusing


@contextmanager
def global_random_state(seed: int) -> Iterator[None]:
    """Seed the global random generators that some tasks use, and restore their states afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def newest_programs() -> Any:
    """The programs of the dataset of codeio that was created last; None before the first."""
    return CodeIODataset._jsonl_data


@contextmanager
def running_programs(programs: Any) -> Iterator[None]:
    """Run programs of codeio as a worker does: some write files into the working directory, and some set the precision of `decimal`
    or how numpy treats a division by zero.

    Args:
        programs: to draw from, as `newest_programs` gave them when the dataset was created. Upstream keeps them in the class, so a
            dataset would draw from those of another one, of another difficulty.
    """
    CodeIODataset._jsonl_data = programs
    with refusing(), warnings.catch_warnings(action="ignore"), decimal.localcontext(decimal.Context()), np.errstate():
        yield
