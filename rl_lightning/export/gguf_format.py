"""The export `gguf`: files for llama.cpp and Ollama, a Modelfile, each quantisation verified."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer

from rl_lightning.checkpointing.atomic_files import write_atomically
from rl_lightning.checkpointing.model_files import GENERATION, read_json
from rl_lightning.export.base_files import copy_tokenizer
from rl_lightning.export.formats import Format
from rl_lightning.export.gguf_conversion import convert, refuse_unknown
from rl_lightning.export.llama_cpp import LlamaCpp, quantise
from rl_lightning.export.loaded import Loaded
from rl_lightning.export.merged_format import Merged
from rl_lightning.export.modelfile import MODELFILE, modelfile, quoted
from rl_lightning.export.source import Source
from rl_lightning.policy.end_tokens import listed
from rl_lightning.types import UserError

_MERGED = ".merged"
_BITS = {"f16": 16, "q8_0": 8.5, "q4_k_m": 6}
_CONTEXT = 1024
"""Tokens that Ollama keeps for a question, beside those of the answer."""


class GGUF(Format):
    """The merged model as GGUF files, by way of a merge in float32; see `Format`.

    Args:
        source: the checkpoint and its run.
        dtype: not allowed.
        quantisations: which files to write; the first is the Modelfile's.
    """

    name, library, tags = "gguf", "gguf", ("llama.cpp",)

    def __init__(self, source: Source, dtype: torch.dtype | None, quantisations: Sequence[str] = ("f16",)) -> None:
        super().__init__(source, dtype)
        if dtype is not None:
            raise UserError("export: --dtype has no effect on GGUF files; choose their weights by --quantize")
        self._merged, self._quantisations = Merged(source, torch.float32), tuple(dict.fromkeys(quantisations))
        quoted(source.prompt.system_prompt or "")  # what cannot be written is known before the work
        refuse_unknown(source.model_directory)

    def what(self) -> str:
        """See `Format`."""
        return f"{self._merged.what().partition(', rounded')[0]}, as GGUF: {', '.join(self._quantisations)}"

    def nbytes(self) -> int:
        """See `Format`. The merged model and the f16 file are there for a while."""
        whole = self._merged.nbytes()
        return int(whole * (1 + sum(_BITS[each] for each in {"f16", *self._quantisations}) / 32))

    def write(self, directory: Path) -> None:
        """See `Format`."""
        (merged := directory / _MERGED).mkdir()
        try:
            copy_tokenizer(directory, merged)
            shutil.copyfile(directory / GENERATION, merged / GENERATION)
            self._merged.write(merged)
            convert(merged, whole := directory / _file("f16"), f"{self.source.run.name}-step-{self.source.step}")
        finally:
            shutil.rmtree(merged)
        for each in self._quantisations:
            if each != "f16":
                quantise(whole, directory / _file(each), each)
        if "f16" not in self._quantisations:
            whole.unlink()
        self._write_modelfile(directory)

    def parts(self, directory: Path) -> dict[str, Callable[[], Loaded]]:
        """See `Format`."""
        return {
            _file(each): lambda each=each: LlamaCpp(directory / _file(each), each)  # type: ignore[misc]
            for each in self._quantisations
        }

    def load(self, directory: Path) -> Loaded:
        """See `Format`."""
        return next(iter(self.parts(directory).values()))()

    def usage(self) -> str:
        """See `Format`."""
        file = f"DIRECTORY/{_file(self._quantisations[0])}"
        return (
            f"```sh\nllama-cli -m {file}\nllama-server -m {file} --port 8080\n"
            f"ollama create my-model -f DIRECTORY/{MODELFILE} && ollama run my-model\n```"
        )

    def _write_modelfile(self, directory: Path) -> None:
        tokenizer, length = AutoTokenizer.from_pretrained(directory), self.source.sampling.max_new_tokens
        ids = listed(read_json(directory / GENERATION).get("eos_token_id"))
        settings = {
            "temperature": self.source.sampling.temperature,
            "num_predict": length,
            "num_ctx": length + _CONTEXT,
        }
        system = self.source.prompt.system_prompt or ""
        text = modelfile(_file(self._quantisations[0]), tokenizer, system, ids, settings)
        write_atomically(directory / MODELFILE, text)


def _file(quantisation: str) -> str:
    return f"model-{quantisation}.gguf"
