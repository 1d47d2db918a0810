"""Merging on made-up files: values by hand, what is in memory at once, other bases."""

from __future__ import annotations

import json
import weakref

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from rl_lightning.export.merging import AdapterDeltas, merged_bytes, write_merged
from rl_lightning.types import UserError

LAYERS, SIZE, RANK = 24, 256, 2
WEIGHT = SIZE * SIZE * 2
"""Bytes of a weight in bfloat16."""


def write_adapter(directory, modules, size=SIZE, rank=RANK, scale=1e-4, **settings):
    """An adapter on square layers, with alpha twice the rank."""
    directory.mkdir()
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for module in modules:
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, size, generator=generator)
        tensors[f"base_model.model.{module}.lora_B.weight"] = scale * torch.randn(size, rank, generator=generator)
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["proj"]} | settings
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def write_base(directory, dtype=torch.bfloat16, size=SIZE):
    """All layers in one file."""
    directory.mkdir()
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"layers.{n}.proj.weight": (0.02 * torch.randn(size, size, generator=generator)).to(dtype)
        for n in range(LAYERS)
    }
    save_file(
        weights | {"position_ids": torch.arange(7)}, directory / "model.safetensors", {"format": "pt", "by": "us"}
    )
    (directory / "config.json").write_text("{}")
    return directory


class Resident(TorchDispatchMode):
    """Counts the bytes of all storages that are alive."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self.biggest = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.see(tensor)
        return out

    def see(self, tensor):
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        self.biggest = max(self.biggest, storage.nbytes())


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 4 / 2**0.5)])
def test_a_weight_by_hand(tmp_path, rslora, scale):
    """W + scale B A; tensors without an adapter, of other dtypes, and the file's metadata stay."""
    base = write_base(tmp_path / "base", torch.float32)
    adapter = write_adapter(tmp_path / "adapter", ["layers.3.proj"], scale=1, use_rslora=rslora)
    (out := tmp_path / "out").mkdir()
    write_merged(base, AdapterDeltas(adapter), out, None)
    found, before = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    of = load_file(adapter / "adapter_model.safetensors")
    a, b = (of[f"base_model.model.layers.3.proj.lora_{part}.weight"].double() for part in "AB")
    expected = before["layers.3.proj.weight"].double() + scale * b @ a
    assert (found["layers.3.proj.weight"] - expected).abs().max() < 1e-5
    del found["layers.3.proj.weight"], before["layers.3.proj.weight"]
    assert all(torch.equal(found[name], before[name]) for name in before)
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "by": "us"}


def test_a_small_adapter_is_not_lost_in_rounding(tmp_path):
    """A change of about a tenth of a step of bfloat16: to the nearest, nearly all of it would go."""
    base, deltas = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter", ["layers.0.proj"], scale=2e-6)
    (out := tmp_path / "out").mkdir()
    write_merged(base, (adds := AdapterDeltas(deltas)), out, None)
    before = load_file(base / "model.safetensors")["layers.0.proj.weight"]
    learned = (adds.add("layers.0.proj.weight", before) - before.float()).flatten()
    kept = (load_file(out / "model.safetensors")["layers.0.proj.weight"].float() - before.float()).flatten()
    nearest = ((before.float() + learned.view_as(before)).bfloat16().float() - before.float()).flatten()
    slope = float(kept @ learned / (learned @ learned))
    assert 0.8 < slope < 1.2
    assert abs(slope - 1) < abs(float(nearest @ learned / (learned @ learned)) - 1)


def test_one_weight_is_in_memory_at_a_time(tmp_path):
    """Of 24 in one file: the one that is merged, twice in float32 and as it is read and written."""
    base = write_base(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", [f"layers.{n}.proj" for n in range(LAYERS)])
    deltas = AdapterDeltas(adapter)
    (out := tmp_path / "out").mkdir()
    with Resident() as resident:
        write_merged(base, deltas, out, torch.bfloat16)
    assert resident.biggest >= 2 * WEIGHT  # it has seen the weight in float32
    assert resident.peak < 8 * WEIGHT < LAYERS * WEIGHT
    assert (out / "model.safetensors").stat().st_size > merged_bytes(base, torch.bfloat16) > LAYERS * WEIGHT


def test_a_missing_place_or_another_shape_is_another_base(tmp_path):
    base = write_base(tmp_path / "base")
    (out := tmp_path / "out").mkdir()
    adapter = write_adapter(tmp_path / "places", [f"layers.{LAYERS}.proj"])
    with pytest.raises(
        UserError, match=r"does not fit the base .* its files have no layers.24.proj.weight; name .* --base"
    ):
        write_merged(base, AdapterDeltas(adapter), out, None)
    adapter = write_adapter(tmp_path / "shapes", ["layers.0.proj"], size=SIZE // 2)
    with pytest.raises(UserError, match="layers.0.proj.weight is 256 by 256 there, and the adapter is for 128 by 128"):
        write_merged(base, AdapterDeltas(adapter), out, None)
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias all"),
    ],
)
def test_what_is_not_plain_lora_is_refused(tmp_path, settings, named):
    adapter = write_adapter(tmp_path / "adapter", ["layers.0.proj"], **settings)
    with pytest.raises(UserError, match=f"not a plain LoRA adapter .*{named}"):
        AdapterDeltas(adapter)
