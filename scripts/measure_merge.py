"""Memory and time of merging an adapter into models of a size, with random weights in real files.

`python scripts/measure_merge.py qwen2.5-0.5b qwen2.5-3b qwen2.5-7b [--directory /tmp/merge] [--one-file]` writes the base in
shards of at most 5 GB (or in one file) and an adapter of rank 16 on all linear layers, merges them into bfloat16 in a process of
its own, and prints its peak of memory: with and without pages of files, which the system takes back when it needs them. All files
are then deleted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file
from torch import Tensor

from rl_lightning.export.merging import AdapterDeltas, write_merged
from rl_lightning.export.tensor_files import INDEX, SINGLE, TensorShape, write_tensors

MODELS = {
    "qwen2.5-0.5b": (24, 896, 4864, 128, 151936, True),
    "qwen2.5-3b": (36, 2048, 11008, 256, 151936, True),
    "qwen2.5-7b": (28, 3584, 18944, 512, 152064, False),
}
"""Layers, width, width of the MLP, width of keys and values, vocabulary, whether the head is tied."""

RANK, SHARD = 16, 5e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--directory", type=Path, default=Path("/tmp/merge"))
    parser.add_argument("--one-file", action="store_true")
    args = parser.parse_args()
    for name in args.models:
        try:
            measure(name, args.directory, args.one_file)
        finally:
            shutil.rmtree(args.directory, ignore_errors=True)


def measure(name: str, directory: Path, one_file: bool) -> None:
    total = write_model(name, directory, one_file)
    needed = total * 1.05
    if (free := shutil.disk_usage(directory).free) < needed:
        raise SystemExit(f"{name}: {needed / 1e9:.0f} GB needed, {free / 1e9:.0f} GB free")
    files = [path.stat().st_size for path in (directory / "base").glob("*.safetensors")]
    context = multiprocessing.get_context("spawn")
    out, there = context.Pipe()
    process = context.Process(target=merge, args=(directory, there))
    process.start()
    seconds, before, anonymous, peak = out.recv()
    process.join()
    print(f"{name}: {total / 1e9:.2f} GB in {len(files)} files, the largest {max(files) / 1e9:.2f} GB; {seconds:.0f} s")
    before, anonymous, peak = (each / 1e9 for each in (before, anonymous, peak))
    print(f"  memory before {before:.2f} GB, at most {anonymous:.2f} GB, with pages of files {peak:.2f} GB", flush=True)


def merge(directory: Path, out: multiprocessing.connection.Connection) -> None:
    """Merge, watching this process's memory."""
    own, stop, most = psutil.Process(), threading.Event(), [0]

    def private() -> int:
        found = own.memory_info()
        return found.rss - found.shared

    def watch() -> None:
        while not stop.wait(0.01):
            most[0] = max(most[0], private())

    before = private()
    thread = threading.Thread(target=watch)
    thread.start()
    began = time.monotonic()
    (merged := directory / "merged").mkdir()
    write_merged(directory / "base", AdapterDeltas(directory / "adapter"), merged, torch.bfloat16)
    seconds = time.monotonic() - began
    stop.set()
    thread.join()
    out.send((seconds, before, most[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def write_model(name: str, directory: Path, one_file: bool) -> int:
    """Write base and adapter; return the base's bytes."""
    (directory / "base").mkdir(parents=True)
    (directory / "adapter").mkdir()
    shapes = model_shapes(name)
    shards: list[dict[str, TensorShape]] = [{}]
    for weight, shape in shapes.items():
        each = TensorShape(shape, torch.bfloat16)
        if not one_file and sum(t.nbytes for t in shards[-1].values()) + each.nbytes > SHARD:
            shards.append({})
        shards[-1][weight] = each
    files = [f"model-{n + 1:05}-of-{len(shards):05}.safetensors" for n in range(len(shards))]
    files = [SINGLE] if len(shards) == 1 else files
    for file, of in zip(files, shards, strict=True):
        write_tensors(directory / "base" / file, of, random_weights(of), {"format": "pt"})
    if len(shards) > 1:
        where = {weight: file for file, of in zip(files, shards, strict=True) for weight in of}
        index = {"metadata": {"total_size": 0}, "weight_map": where}
        (directory / "base" / INDEX).write_text(json.dumps(index))
    adapter = {}
    for weight, shape in shapes.items():
        if "proj" in weight and weight.endswith("weight"):
            place = f"base_model.model.{weight.removesuffix('.weight')}"
            adapter[f"{place}.lora_A.weight"] = torch.randn(RANK, shape[1])
            adapter[f"{place}.lora_B.weight"] = torch.randn(shape[0], RANK)
    save_file(adapter, directory / "adapter" / "adapter_model.safetensors")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": targets}
    (directory / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return sum(each.nbytes for of in shards for each in of.values())


def random_weights(of: dict[str, TensorShape]) -> Iterator[Tensor]:
    for each in of.values():
        yield torch.empty(each.shape, dtype=torch.float32).uniform_(-0.05, 0.05).to(each.dtype)


def model_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every weight of a Qwen2.5 model and its shape."""
    layers, width, mlp, kv, words, tied = MODELS[name]
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, width), "model.norm.weight": (width,)}
    for n in range(layers):
        at = f"model.layers.{n}"
        found |= {f"{at}.self_attn.{part}_proj.weight": (kv if part in "kv" else width, width) for part in "qkvo"}
        found |= {f"{at}.self_attn.{part}_proj.bias": (kv if part in "kv" else width,) for part in "qkv"}
        found |= {f"{at}.mlp.gate_proj.weight": (mlp, width), f"{at}.mlp.up_proj.weight": (mlp, width)}
        found |= {f"{at}.mlp.down_proj.weight": (width, mlp)}
        found |= {f"{at}.{part}_layernorm.weight": (width,) for part in ("input", "post_attention")}
    return found if tied else found | {"lm_head.weight": (words, width)}


if __name__ == "__main__":
    main()
