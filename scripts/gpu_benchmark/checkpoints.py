"""Write checkpoints of random weights in the exact shapes of Qwen2.5 to disk, so that they are loaded like real ones."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from gpu_benchmark import Report
from gpu_benchmark.device import device_of
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.policy.loading import load_tokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "0.5B": {"layers": 24, "width": 896, "mlp": 4864, "heads": 14, "kv_heads": 2, "vocabulary": 151_936},
    "1.5B": {"layers": 28, "width": 1536, "mlp": 8960, "heads": 12, "kv_heads": 2, "vocabulary": 151_936},
    "3B": {"layers": 36, "width": 2048, "mlp": 11_008, "heads": 16, "kv_heads": 2, "vocabulary": 151_936},
    "7B": {"layers": 28, "width": 3584, "mlp": 18_944, "heads": 28, "kv_heads": 4, "vocabulary": 152_064},
    "toy": {"layers": 2, "width": 64, "mlp": 128, "heads": 4, "kv_heads": 2, "vocabulary": 1000},
}
"""Sizes as in the models' config.json on the Hub; `toy` is not a real model."""

_STD = 0.02
_SHARD_BYTES = 2e9


def config_of(name: str) -> Qwen2Config:
    """The configuration of a shape. Its EOS token is the tiny policy's: one of a whole vocabulary of about equally likely ones."""
    shape, tokenizer = SHAPES[name], load_tokenizer("tiny")
    return Qwen2Config(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["width"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        tie_word_embeddings=name != "7B",
        max_position_embeddings=32_768,
        rms_norm_eps=1e-6,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
        architectures=["Qwen2ForCausalLM"],
    )


def write(job: dict[str, Any], report: Report) -> None:
    """Write checkpoints in bfloat16 shards, with the tiny policy's tokenizer next to each.

    Args:
        job: `device`, where the numbers are drawn; `shapes`, names in SHAPES to their directories.

    Raises:
        OSError: the disk has no room for one.
    """
    for shape, path in job["shapes"].items():
        report(**{shape: _write_one(shape, Path(path), device_of(job["device"]))})


def _write_one(shape: str, directory: Path, device: torch.device) -> dict[str, Any]:
    began = time.perf_counter()
    directory.mkdir(parents=True, exist_ok=True)
    for file in EMBEDDED["tiny"].iterdir():
        if file.name.startswith(("tokenizer", "chat_template")):
            shutil.copy(file, directory)
    config = config_of(shape)
    config.save_pretrained(directory)
    with torch.device("meta"):
        empty = Qwen2ForCausalLM(config).state_dict()
    if config.tie_word_embeddings:
        del empty["lm_head.weight"]
    size = sum(2 * tensor.numel() for tensor in empty.values())
    if (free := shutil.disk_usage(directory).free) < 1.1 * size:
        raise OSError(f"{directory} has {free / 1e9:.1f} GB free; {shape} needs {size / 1e9:.1f} GB: see --workdir")
    _write_shards(directory, empty, device)
    return {"bytes": size, "write_seconds": round(time.perf_counter() - began, 2)}


def _write_shards(directory: Path, empty: dict[str, Tensor], device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)
    shard: dict[str, Tensor] = {}
    where: dict[str, str] = {}
    names = list(empty)
    for name in names:
        shard[name] = _drawn(name, empty[name], generator).cpu()
        if name == names[-1] or sum(tensor.nbytes for tensor in shard.values()) >= _SHARD_BYTES:
            file = f"model-{len(set(where.values())) + 1:05d}.safetensors"
            save_file(shard, directory / file, metadata={"format": "pt"})
            where.update(dict.fromkeys(shard, file))
            shard = {}
    index = {"metadata": {"total_size": sum(2 * t.numel() for t in empty.values())}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _drawn(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    tensor = torch.empty(like.shape, dtype=torch.bfloat16, device=generator.device)
    if name.endswith("norm.weight"):
        return tensor.fill_(1)
    return tensor.zero_() if name.endswith("bias") else tensor.normal_(0, _STD, generator=generator)
