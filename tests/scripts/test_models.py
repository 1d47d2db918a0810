"""A family of models for each special feature: right against plain transformers and PEFT, or refused in one line."""

from __future__ import annotations

import pytest
from model_families.families import FAMILIES
from model_families.measure import Measured, Row, row
from model_families.table import page, table

EXPECTED = {
    "Qwen3": "right",
    "SmolLM3": "right",  # a layer without rotary encoding
    "Mistral": "right",  # a sliding window in all layers
    "OLMo 3": "right",  # in every other layer; norms after the layers' parts
    "Phi-4-mini": "right",  # partial rotary encoding; fused projections
    "Granite 3": "right",  # four multipliers
    "Qwen3-MoE": "right",  # experts
    "Gemma 2": "right",  # soft-capped attention and logits
    "Gemma 3 multimodal": "right",  # the language model is a part
    "GPT-OSS": "right",  # attention sinks
    "qwen2, attention_dropout 0.1": "right",
    "mamba": "refused",  # state instead of keys and values
    "qwen3_next": "refused",  # some of it
}


def checked(name: str, quantization: str) -> Row:
    found = row(name, FAMILIES[name], quantization, bf16=False)
    print(table([found]))
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_a_family_is_right_or_refused(name):
    verdict = checked(name, "none").verdict
    assert verdict.partition(":")[0] == EXPECTED[name]
    assert "\n" not in verdict


def test_a_family_is_right_in_4_bits():
    assert checked("Qwen2.5", "nf4").verdict == "right"


def test_what_is_not_a_number_is_not_right():
    right = Measured("RolloutNetwork", update=1e-6, sampler=1e-6, gradient=1e-6, greedy=8)
    assert right.right
    for name in ("update", "sampler", "gradient"):
        assert not Measured(**vars(right) | {name: float("nan")}).right
    assert not Measured(**vars(right) | {"greedy": 7}).right


def test_the_page_keeps_listed_families_and_others_apart():
    rows = [Row("Qwen3", "none", "refused: a | b"), Row("mamba", "none", "CRASH: KeyError")]
    listed, _, others = page(rows, {"mamba"}).partition("## Others")
    assert "| Qwen3 | none | refused: a \\| b |" in listed
    assert "mamba" in others
    assert [each.failed for each in rows] == [False, True]
