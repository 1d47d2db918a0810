"""The prompts that a policy was trained with, in an export's chat template and card; the tokens that end a completion."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from transformers import AutoTokenizer

from rl_lightning.environments.prompts import PromptSettings
from rl_lightning.export.base_files import hub_name
from rl_lightning.export.default_prompt import is_the_trained_prompt, template_with_prompt, write_template
from rl_lightning.export.exporting import write_generation_config
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.report.model_card import CardOf, PromptNote, model_card
from rl_lightning.report.run_files import Run

SYSTEM = 'Think in <think>.\n"Quotes", {{ braces }} and ümlauts.'
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
FIRST_ONLY = (  # what comes before the user's message depends on whether the system message is missing
    "{% if messages[0]['role'] != 'system' %}<|system|>Be helpful.<|im_end|>{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(EMBEDDED["tiny"])


@pytest.mark.parametrize("own", [None, FIRST_ONLY])
def test_the_template_writes_the_system_prompt_by_itself(tokenizer, own, tmp_path):
    tokenizer.chat_template = own or tokenizer.chat_template
    settings = PromptSettings(SYSTEM)
    assert not is_the_trained_prompt(tokenizer, settings, False)
    template = template_with_prompt(tokenizer, settings, False)
    tokenizer.save_pretrained(tmp_path)
    write_template(tmp_path, template)
    export = AutoTokenizer.from_pretrained(tmp_path)
    assert is_the_trained_prompt(export, settings, False)
    question = [{"role": "user", "content": "What is 2 + 3?"}]
    bare = export.apply_chat_template(question, add_generation_prompt=True)["input_ids"]
    assert tuple(bare) == settings.template(tokenizer).token_ids("What is 2 + 3?")
    given = [{"role": "system", "content": "Other."}, *question]
    assert export.apply_chat_template(given, tokenize=False) == tokenizer.apply_chat_template(given, tokenize=False)


@pytest.mark.parametrize(
    ("settings", "examples", "own"),
    [
        (PromptSettings(""), False, None),  # none is needed
        (PromptSettings(SYSTEM), True, None),
        (PromptSettings(SYSTEM, prefill="<think>"), False, None),
        (PromptSettings(SYSTEM, prompt_template="Q: {question}\nA:"), False, None),
        (PromptSettings(SYSTEM), False, NO_SYSTEM),  # there it begins the user's message
    ],
)
def test_a_template_that_would_not_give_the_training_s_prompts_stays(tokenizer, settings, examples, own):
    tokenizer.chat_template = own or tokenizer.chat_template
    assert template_with_prompt(tokenizer, settings, examples) is None
    assert is_the_trained_prompt(tokenizer, settings, examples) == (settings.system_prompt == "")


def test_the_end_tokens_are_those_of_the_run(tokenizer, tmp_path):
    """The base names <|endoftext|> alone, and the chat template ends a turn by <|im_end|>."""
    base = shutil.copytree(EMBEDDED["tiny"], tmp_path / "base")
    pad, end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    own = {"eos_token_id": pad, "repetition_penalty": 1.1}
    (base / "generation_config.json").write_text(json.dumps(own))
    write_generation_config(SimpleNamespace(model_directory=base), tokenizer, tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == own | {"eos_token_id": [pad, end]}
    (base / "generation_config.json").unlink()
    write_generation_config(SimpleNamespace(model_directory=base), tokenizer, tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == end


def test_a_base_s_name_on_the_hub(tmp_path):
    base = tmp_path / "models--org--name" / "snapshots" / "0a1b2c"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    assert hub_name("org/name", base) == "org/name"
    assert hub_name(str(base), base) == "org/name"
    (plain := tmp_path / "plain").mkdir()
    (plain / "config.json").write_text("{}")
    assert hub_name(str(plain), plain) is None
    (plain / "config.json").write_text('{"_name_or_path": "org/older"}')
    assert hub_name(str(plain), plain) == "org/older"


def test_the_card_says_how_the_policy_was_asked(run, tmp_path):
    note = PromptNote(
        {"system_prompt": SYSTEM, "prefill": "<think>"}, {"chain_sum": [("1 + 1?", "```2```")]}, "whole", False
    )
    text = model_card(CardOf(Run(run, "sums"), 2, "org/base-3B", "a LoRA adapter", "peft", prompt=note))
    (tmp_path / "README.md").write_text(text)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "org/base-3B"
    for part in (SYSTEM, "<think>", "user: 1 + 1?\n\nassistant: ```2```", "whole", "does not write them by itself"):
        assert part in card.text
