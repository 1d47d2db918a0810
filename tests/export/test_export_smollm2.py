"""An export of a real model, SmolLM2-135M-Instruct, where scripts/smollm2.py has made it."""

from __future__ import annotations

import json

import bitsandbytes as bnb
import pytest
from transformers import AutoTokenizer

from rl_lightning.cli.main import main
from rl_lightning.export import merging
from tests.test_smollm2 import MODEL, train_smollm2_once

pytestmark = [
    pytest.mark.smollm2,
    pytest.mark.skipif(not MODEL.is_dir(), reason=f"{MODEL} is not there; python scripts/smollm2.py makes it"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One step, with a reward by which every group differs."""
    root = tmp_path_factory.mktemp("runs") / "smollm2"
    assert train_smollm2_once(root, prompts=4) == 0
    return root


def found(directory):
    return json.loads((directory / "rl_lightning_export.json").read_text())["verification"]


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_export_is_near_the_policy_on_the_full_precision_base(run, tmp_path, form):
    words = ["--format", form, "--verify-problems", "3"]
    assert main(["export", str(run), "--to", str(tmp_path / "out"), *words]) == 0
    distance = found(tmp_path / "out")
    assert distance["distance"]["mean"] < distance["of_4_bits"]["mean"] / 3
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (MODEL / name).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token == "<|im_end|>"
    assert "Worked examples before every question of products" in (tmp_path / "out" / "README.md").read_text()


def test_a_merge_into_the_4_bit_base_is_found(run, tmp_path, monkeypatch):
    read = merging.read_tensor

    def in_4_bits(file, name):
        tensor = read(file, name)
        if "proj" not in name or "lora" in name:
            return tensor
        return bnb.functional.dequantize_4bit(*bnb.functional.quantize_4bit(tensor, quant_type="nf4"))

    monkeypatch.setattr(merging, "read_tensor", in_4_bits)
    words = ["--format", "merged", "--verify-problems", "3"]
    assert main(["export", str(run), "--to", str(tmp_path / "out"), *words]) == 1
    assert not (tmp_path / "out").exists()
    (fault,) = found(tmp_path / "out.failed")["faults"]
    assert "log-probs differ" in fault
