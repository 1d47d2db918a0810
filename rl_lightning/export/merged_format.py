"""The export `merged`: one dense model, which transformers and every inference server load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rl_lightning.export.base_files import copy_model_files, refuse_quantised
from rl_lightning.export.formats import Format, compute_device, load_parts
from rl_lightning.export.loaded import Loaded, PlainModel
from rl_lightning.export.merging import AdapterDeltas, merged_bytes, write_merged
from rl_lightning.export.source import Source


class Merged(Format):
    """The adapter in the full-precision base, or the model that was trained as a whole; see `Format`."""

    name, library = "merged", "transformers"

    def __init__(self, source: Source, dtype: torch.dtype | None) -> None:
        super().__init__(source, dtype)
        refuse_quantised(source.model_directory)
        self._deltas = AdapterDeltas(source.checkpoint) if source.has_adapter else None

    def what(self) -> str:
        """See `Format`."""
        what = "the LoRA adapter merged into the full-precision base" if self._deltas else "the whole model as trained"
        return what if self.dtype is None else f"{what}, rounded to {str(self.dtype).removeprefix('torch.')}"

    def nbytes(self) -> int:
        """See `Format`."""
        return merged_bytes(self.source.model_directory, self.dtype)

    def write(self, directory: Path) -> None:
        """See `Format`."""
        base = self.source.model_directory
        copy_model_files(base, directory, None if self.dtype is None else str(self.dtype).removeprefix("torch."))
        write_merged(base, self._deltas, directory, self.dtype)

    def load(self, directory: Path) -> Loaded:
        """See `Format`."""
        model: Any = AutoModelForCausalLM.from_pretrained(directory)
        return PlainModel(model.to(compute_device()), *load_parts(directory))

    def usage(self) -> str:
        """See `Format`."""
        return (
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("DIRECTORY")\n'
            'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")\n```'
        )
