"""Read and write safetensors one tensor at a time, so that no more than one need be in memory.

The library's own `save_file` wants all tensors of a file at once: that is 15 GB where a model of 7B parameters is in one file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rl_lightning.types import UserError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What safetensors calls torch's dtypes."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8


@dataclass(frozen=True)
class TensorShape:
    """A tensor before it is read.

    Attributes:
        shape: its shape.
        dtype: its dtype.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def weight_files(model: Path) -> list[Path]:
    """The safetensors files of a model's directory, in order.

    Raises:
        UserError: there are none, or one is missing.
    """
    if (model / INDEX).is_file():
        try:
            names = sorted(set(json.loads((model / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{model / INDEX}: not an index of safetensors files ({error})") from error
    else:
        names = [SINGLE]
    for name in names:
        if not (model / name).is_file():
            raise UserError(f"{model}: {name} is missing; the full-precision weights are needed as safetensors")
    return [model / name for name in names]


def shapes(file: Path) -> dict[str, TensorShape]:
    """The tensors of a file by name, in the order of their bytes; none is read.

    Raises:
        UserError: it is not a safetensors file, or has tensors of a dtype that torch has not.
    """
    found = {}
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.offset_keys():
                part = opened.get_slice(name)
                if (dtype := part.get_dtype()) not in DTYPES:
                    raise UserError(f"{file}: {name} is stored as {dtype}, quantised; the original weights are needed")
                found[name] = TensorShape(tuple(part.get_shape()), DTYPES[dtype])
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read ({' '.join(str(error).split())})") from error
    return found


def read_tensor(file: Path, name: str) -> Tensor:
    """One tensor. The file is opened for it alone, because all that was read of an open file stays in memory."""
    with safe_open(file, "pt") as opened:
        return opened.get_tensor(name)


def metadata(file: Path) -> dict[str, str]:
    """What the file says besides its tensors."""
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata() or {"format": "pt"})


def write_tensors(
    file: Path, of: Mapping[str, TensorShape], tensors: Iterable[Tensor], about: Mapping[str, str]
) -> None:
    """Write a safetensors file.

    Args:
        file: its path.
        of: what it will have, by name.
        tensors: the tensors in the same order, each taken when the one before is written.
        about: its metadata.
    """
    header: dict[str, object] = {"__metadata__": dict(about)}
    end = 0
    for name, each in of.items():
        start, end = end, end + each.nbytes
        header[name] = {"dtype": _NAMES[each.dtype], "shape": list(each.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for (name, each), tensor in zip(of.items(), tensors, strict=True):
            assert (tuple(tensor.shape), tensor.dtype) == (each.shape, each.dtype), name
            out.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
