"""The formats of an export. Another one is a class in a file of its own, and an entry in `cli/export.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from rl_lightning.export.loaded import Loaded
from rl_lightning.export.source import Source


class Format(ABC):
    """A form in which a policy leaves its run.

    Args:
        source: the checkpoint and its run.
        dtype: of floating-point weights; None: as they are.

    Raises:
        UserError: the checkpoint cannot be exported in this form; before anything is written.
    """

    name: ClassVar[str]
    """As `--format` has it."""

    library: ClassVar[str]
    """What loads it, as the hub's `library_name`."""

    tags: ClassVar[tuple[str, ...]] = ()
    """More tags of the model card."""

    def __init__(self, source: Source, dtype: torch.dtype | None) -> None:
        self.source, self.dtype = source, dtype

    @abstractmethod
    def what(self) -> str:
        """What it is in a few words, for the card: "a LoRA adapter"."""

    @abstractmethod
    def nbytes(self) -> int:
        """The bytes of its weights, to compare with the disk's free ones."""

    @abstractmethod
    def write(self, directory: Path) -> None:
        """Write weights and their config into an existing directory; tokenizer and generation config are there already.

        Raises:
            OSError: the disk is full, for instance.
        """

    @abstractmethod
    def load(self, directory: Path) -> Loaded:
        """Load the directory as its user will.

        Raises:
            UserError: it cannot be loaded.
        """

    def parts(self, directory: Path) -> dict[str, Callable[[], Loaded]]:
        """What is verified, one after the other: by the file's name what loads it; the directory as a whole has the name ""."""
        return {"": lambda: self.load(directory)}

    @abstractmethod
    def usage(self) -> str:
        """Python or shell that loads it, as markdown for the card; DIRECTORY stands for its place."""


def load_parts(directory: Path) -> tuple[Any, Any]:
    """Tokenizer and generation config of an export, by plain transformers."""
    from transformers import AutoTokenizer, GenerationConfig

    return AutoTokenizer.from_pretrained(directory), GenerationConfig.from_pretrained(directory)


def compute_device() -> torch.device:
    """Where an export is loaded: the GPU, if there is one."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
