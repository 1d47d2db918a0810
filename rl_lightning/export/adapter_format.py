"""The export `adapter`: a PEFT directory, a few megabytes beside the base that everybody has."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rl_lightning.checkpointing.atomic_files import write_json
from rl_lightning.checkpointing.model_files import CONFIG_FILE, WEIGHTS_FILE, read_json
from rl_lightning.export.formats import Format, compute_device, load_parts
from rl_lightning.export.loaded import Loaded, PlainModel
from rl_lightning.export.merging import AdapterDeltas
from rl_lightning.export.source import Source
from rl_lightning.types import UserError


class Adapter(Format):
    """The checkpoint's adapter, with the base's name as others need it; see `Format`."""

    name, library, tags = "adapter", "peft", ("lora",)

    def __init__(self, source: Source, dtype: torch.dtype | None) -> None:
        super().__init__(source, dtype)
        if not source.has_adapter:
            raise UserError(
                f"export: {source.checkpoint} is a whole model, trained with lora_r 0: it has no adapter; use --format merged"
            )
        if dtype is not None:
            raise UserError("export: --dtype has no effect on an adapter, which stays in float32; leave it out")
        AdapterDeltas(source.checkpoint)  # refuses what is not plain LoRA

    def what(self) -> str:
        """See `Format`."""
        return "a LoRA adapter, which needs the base beside it"

    def nbytes(self) -> int:
        """See `Format`."""
        return (self.source.checkpoint / WEIGHTS_FILE).stat().st_size

    def write(self, directory: Path) -> None:
        """See `Format`."""
        shutil.copyfile(self.source.checkpoint / WEIGHTS_FILE, directory / WEIGHTS_FILE)
        config = read_json(self.source.checkpoint / CONFIG_FILE)
        write_json(directory / CONFIG_FILE, config | {"base_model_name_or_path": self.source.base_name})

    def load(self, directory: Path) -> Loaded:
        """See `Format`. The base is read from where it is on this machine."""
        base: Any = AutoModelForCausalLM.from_pretrained(self.source.model_directory)
        base.to(compute_device())
        return PlainModel(PeftModel.from_pretrained(base, str(directory)), *load_parts(directory))

    def usage(self) -> str:
        """See `Format`."""
        return (
            "```python\nfrom peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{self.source.base_name}")\n'
            'model = PeftModel.from_pretrained(base, "DIRECTORY")\n'
            'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")\n'
            'generation = GenerationConfig.from_pretrained("DIRECTORY")  # for the end tokens: model.generate(…, generation)\n```'
        )
