"""How a plan divides the layers among cards, and what it predicts of each."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config, Qwen2Config

from rl_lightning.cli.main import main
from rl_lightning.memory import HeldModel, Plan, PlannedSettings, StepShape, arithmetic, gpu_of_size, make_plan, table
from rl_lightning.memory.cards import part_of, predict_cards
from rl_lightning.memory.phases import predict
from rl_lightning.memory.shapes import model_shape, shape_of
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.loading import load_model
from rl_lightning.rollout import LocalEngine
from rl_lightning.types import UserError
from tests.conftest import ROOT
from tests.virtual_cards import card, virtual_cards

ENGINE = LocalEngine()
STEP = StepShape(prompts=8, group=8, prompt_tokens=512, new_tokens=512)
SETTINGS = PlannedSettings(4608, 32, True, False)
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "vocab_size": 640,
}
SHALLOW = SIZES | {"num_key_value_heads": 2, "eos_token_id": 2}
VISION = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
PICTURES = VISION | {"image_size": 28, "vision_use_head": False}
MODELS = [
    Qwen2Config(**SHALLOW, tie_word_embeddings=False),
    Gemma3Config(text_config=SHALLOW | {"head_dim": 64}, vision_config=PICTURES, mm_tokens_per_image=4),
]


def plan_of(name: str, vram: float, cards: int) -> Plan:
    return make_plan(PolicyConfig(name), STEP, "auto", "auto", gpu_of_size(vram, cards), ENGINE)


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.model_type)
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_each_card_holds_what_was_predicted(config, quantization, tmp_path, monkeypatch):
    """The first card all that is outside the layers, a vision tower included."""
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    held = HeldModel(shape_of(config), 2, quantization == "nf4", 16)
    devices = [card(0)] + 2 * [card(1)] + 2 * [card(2)]
    with virtual_cards(monkeypatch) as cards:
        settings = PolicyConfig(str(tmp_path), quantization, dtype="bfloat16")
        model = load_model(settings, card(0), seed=0, layer_devices=devices)
        for number in range(3):
            part = part_of(held, devices.count(card(number)), first=number == 0)
            here = {id(p): p for p in model.parameters() if cards.of(p) == number}
            trained = sum(p.nbytes for p in here.values() if p.requires_grad)
            frozen = sum(p.nbytes for p in here.values() if not p.requires_grad)
            assert trained == arithmetic.adapter(part.shape, 16)
            predicted = arithmetic.base(part.shape, 2, part.quantized)
            assert frozen == pytest.approx(predicted, rel=0.04 if part.quantized else 1e-3)  # scales are no parameters
            assert frozen <= predicted


def test_the_parts_are_the_whole():
    shape, _ = model_shape("Qwen/Qwen2.5-32B-Instruct")
    model = HeldModel(shape, 2, True, 16)
    parts = [part_of(model, layers, first).shape for layers, first in ((13, True), (26, False), (25, False))]
    assert sum(part.layers for part in parts) == shape.layers
    assert sum(part.parameters for part in parts) == shape.parameters
    assert sum(part.lora_weights_per_rank for part in parts) == shape.lora_weights_per_rank
    assert [part.vocabulary for part in parts] == [shape.vocabulary, 0, 0]


@pytest.mark.parametrize("cards", [2, 3, 5])
@pytest.mark.parametrize("name", ["tiny", "Qwen/Qwen2.5-0.5B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"])
def test_no_other_division_leaves_the_fullest_card_emptier(name, cards):
    """Tried one after another; those of the later cards that are not even are no better."""
    shape, _ = model_shape(name)
    model, device, others = HeldModel(shape, 2, True, 16), gpu_of_size(24, cards), cards - 1
    if cards > shape.layers:
        with pytest.raises(
            UserError, match=f"devices_per_replica: {cards} is not allowed; it must be at most {shape.layers}"
        ):
            plan_of(name, 24, cards)
        return
    found = predict_cards(model, STEP, SETTINGS, device, ENGINE)
    assert sum(each.model.shape.layers for each in found) == shape.layers
    peaks = []
    for first in range(1, shape.layers - others + 1):
        for layers, is_first in ((first, True), (-(-(shape.layers - first) // others), False)):
            phases = predict(part_of(model, layers, is_first), STEP, SETTINGS, device, ENGINE)
            peaks.append(max(sum(parts.values()) for parts in phases.values()))
    best = min(max(pair) for pair in zip(peaks[::2], peaks[1::2], strict=True))
    assert max(each.peak for each in found) == best


def test_what_fits_on_cards_of_24_gb():
    fits = {
        (name, cards): plan_of(name, 24, cards).fits
        for name in ("Qwen/Qwen2.5-14B-Instruct", "Qwen/Qwen2.5-32B-Instruct", "meta-llama/Llama-3.3-70B-Instruct")
        for cards in (1, 2, 3)
    }
    assert [cards for (name, cards), does in fits.items() if "14B" in name and does] == [1, 2, 3]
    assert [cards for (name, cards), does in fits.items() if "32B" in name and does] == [2, 3]
    assert [cards for (name, cards), does in fits.items() if "70B" in name and does] == [3]


def test_a_plan_that_fits_does_so_on_every_card_and_in_every_phase():
    for vram in (16, 24, 48):
        plan = plan_of("Qwen/Qwen2.5-32B-Instruct", vram, 2)
        totals = [sum(parts.values()) for each in plan.cards for parts in each.phases.values()]
        assert plan.fits
        assert max(totals) == plan.peak <= vram * 1e9
        assert plan.layer_devices([card(0), card(1)]) == [
            card(number) for number, each in enumerate(plan.cards) for _ in range(each.model.shape.layers)
        ]


def test_the_table_shows_each_card():
    plan = plan_of("Qwen/Qwen2.5-32B-Instruct", 24, 2)
    lines = table(plan).splitlines()
    assert lines[0].endswith("on 2 GPUs with 24 GB each, GB; the parts are the fullest card's")
    layers = [each.model.shape.layers for each in plan.cards]
    assert next(line for line in lines if line.startswith("  card 0")).endswith(
        f"{layers[0]} layers, embedding and head"
    )
    assert next(line for line in lines if line.startswith("  card 1")).endswith(f"{layers[1]} layers")
    assert "card" not in table(plan_of("tiny", 24, 1))


def test_plan_takes_a_number_of_cards(capsys):
    config = ["--config", str(ROOT / "configs" / "qwen2.5-7b.yaml")]
    model = ["--model.policy.model_name_or_path", "Qwen/Qwen2.5-32B-Instruct"]
    assert main(["plan", *config, *model, "--vram", "24", "--cards", "2"]) == 0
    assert main(["plan", *config, *model, "--vram", "24", "--model.policy.devices_per_replica", "2"]) == 0
    assert capsys.readouterr().out.count("on 2 GPUs with 24 GB each") == 2
    assert main(["plan", *config, "--vram", "24", "--cards", "two"]) == 2
    assert "a number of cards, such as 2" in capsys.readouterr().err
    with pytest.raises(UserError, match="cards: 0 is not allowed; it must be at least 1"):
        gpu_of_size(24, 0)
    if not torch.cuda.is_available():
        assert main(["plan", *config, "--cards", "2"]) == 2
        assert "policy.devices_per_replica: 2 is not allowed; it must be 1 on a CPU" in capsys.readouterr().err
