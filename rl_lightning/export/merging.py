"""Merge an adapter into the full-precision base, file by file and tensor by tensor, on the CPU.

Each adapted weight is W + scale * B A in float32, rounded once to the dtype of the export; to bfloat16 up or down, as for rollouts
(`dithered`), because to the nearest a short run loses a quarter of what it has learned (docs/export.md). All other tensors are
copied. Shards and their names stay as they are in the base.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl_lightning.checkpointing.atomic_files import write_json
from rl_lightning.checkpointing.model_files import WEIGHTS_FILE
from rl_lightning.export.tensor_files import (
    INDEX,
    TensorShape,
    metadata,
    read_tensor,
    shapes,
    weight_files,
    write_tensors,
)
from rl_lightning.policy.adapters import lora_settings
from rl_lightning.policy.lora import dithered
from rl_lightning.types import UserError

_PREFIX = "base_model.model."


class AdapterDeltas:
    """What a LoRA adapter adds to weights of the base; its matrices are read when they are needed.

    Args:
        adapter: a PEFT directory.

    Attributes:
        shapes: the shape of each weight that it changes, by the weight's name.

    Raises:
        UserError: it is not a plain LoRA adapter.
    """

    def __init__(self, adapter: Path) -> None:
        settings = lora_settings(adapter)
        rank, alpha = settings["lora_r"], settings["lora_alpha"]
        self.adapter, self._file = adapter, adapter / WEIGHTS_FILE
        self._scale = alpha / (math.sqrt(rank) if settings["use_rslora"] else rank)
        found = shapes(self._file)
        self.shapes: dict[str, tuple[int, int]] = {}
        for name in sorted(found):
            module = name.removeprefix(_PREFIX).rpartition(".lora_A")[0]
            if module:
                a, b = (
                    found[name].shape,
                    found.get(f"{_PREFIX}{module}.lora_B.weight", TensorShape((), torch.uint8)).shape,
                )
                if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
                    raise UserError(f"{self._file}: {module} has no matrices of rank {rank}, which its config names")
                self.shapes[f"{module}.weight"] = b[0], a[1]

    def add(self, name: str, weight: Tensor) -> Tensor:
        """A weight of the base with the adapter added, in float32.

        Args:
            name: the weight's name, one of `shapes`.
            weight: (out, in), any float dtype; in float32 it is overwritten.
        """
        module = name.removesuffix(".weight")
        a, b = (read_tensor(self._file, f"{_PREFIX}{module}.lora_{part}.weight").float() for part in "AB")
        return weight.float().addmm_(b, a, alpha=self._scale)


@torch.no_grad()
def write_merged(base: Path, deltas: AdapterDeltas | None, directory: Path, dtype: torch.dtype | None) -> None:
    """Write the safetensors files, and their index where there are several.

    Args:
        base: a model's directory with full-precision weights.
        deltas: the adapter; None where the base is the model that was trained as a whole.
        directory: where to; exists.
        dtype: of all floating-point tensors; None: each as it is in the base.

    Raises:
        UserError: the adapter is for another base.
        OSError: the disk is full, for instance.
    """
    files = weight_files(base)
    found = {file: shapes(file) for file in files}
    changed = {} if deltas is None else deltas.shapes
    if deltas is not None:
        _refuse_other_base(base, deltas, {name: each for of in found.values() for name, each in of.items()})
    total = 0
    for file, of in found.items():
        target = {name: TensorShape(each.shape, _dtype_of(each, dtype)) for name, each in of.items()}
        total += sum(each.nbytes for each in target.values())

        def tensors(file: Path = file, target: dict[str, TensorShape] = target) -> Iterator[Tensor]:
            for name, each in target.items():
                tensor = read_tensor(file, name)
                if deltas is not None and name in changed:
                    tensor = dithered(deltas.add(name, tensor), each.dtype)
                yield tensor.to(each.dtype)

        write_tensors(directory / file.name, target, tensors(), metadata(file))
    if (base / INDEX).is_file():
        index: dict[str, Any] = json.loads((base / INDEX).read_text(encoding="utf-8"))
        if index.get("metadata", {}).get("total_size") == total:
            (directory / INDEX).write_bytes((base / INDEX).read_bytes())
        else:
            write_json(directory / INDEX, index | {"metadata": {**index.get("metadata", {}), "total_size": total}})


def merged_bytes(base: Path, dtype: torch.dtype | None) -> int:
    """The bytes of the files that `write_merged` writes, but for their headers."""
    return sum(
        TensorShape(each.shape, _dtype_of(each, dtype)).nbytes
        for file in weight_files(base)
        for each in shapes(file).values()
    )


def _dtype_of(each: TensorShape, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and each.dtype.is_floating_point else each.dtype


def _refuse_other_base(base: Path, deltas: AdapterDeltas, found: dict[str, TensorShape]) -> None:
    for name, shape in deltas.shapes.items():
        if name not in found:
            wrong = f"its files have no {name}"
        elif found[name].shape != shape:
            wrong = f"{name} is {_by(found[name].shape)} there, and the adapter is for {_by(shape)}"
        elif not found[name].dtype.is_floating_point:
            wrong = f"{name} is stored as {found[name].dtype}".replace("torch.", "")
        else:
            continue
        raise UserError(
            f"export: {deltas.adapter} does not fit the base {base}: {wrong}; name the full-precision weights of the model that it "
            "was trained on by --base"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " by ".join(str(size) for size in shape)
