"""The tokens that end a completion, among them the one that the chat template itself writes after an assistant's turn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer, PreTrainedConfig

from rl_lightning.policy.config import EMBEDDED
from rl_lightning.policy.end_tokens import end_token_ids, end_tokens, end_tokens_line

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
CHATML = TURNS + "<|im_end|>\n{% endfor %}"
HARMONY = TURNS + "{% if loop.last and m['role'] == 'assistant' %}<|im_end|>{% else %}<answer>{% endif %}{% endfor %}"
THINKING = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n"
    "{{ m['content'].split('</think>')[-1] }}{% else %}{{ m['content'] }}{% endif %}<|im_end|>{% endfor %}"
)
BARE = TURNS + "{% endfor %}"
REFUSING = "{{ raise_exception('users only') }}"
WITHOUT_ANSWERS = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}<|im_end|>{% endfor %}"


@pytest.fixture
def tokenizer():
    """The tiny policy's, with <|endoftext|> as its end, as a base model's tokenizer has."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    tokenizer.eos_token = "<|endoftext|>"
    return tokenizer


def model_of(ends) -> SimpleNamespace:
    return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=ends), config=PreTrainedConfig())


@pytest.mark.parametrize("template", [CHATML, HARMONY, THINKING], ids=["chatml", "harmony", "thinking"])
def test_the_token_that_the_template_ends_the_last_turn_with_ends_a_completion(tokenizer, template):
    tokenizer.chat_template = template
    ends = {tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>")}
    assert end_token_ids(model_of(tokenizer.eos_token_id), tokenizer).tolist() == sorted(ends)


@pytest.mark.parametrize("template", [BARE, REFUSING, WITHOUT_ANSWERS], ids=["bare", "refusing", "without answers"])
def test_a_template_that_shows_no_end_adds_none(tokenizer, template):
    tokenizer.chat_template = template
    assert end_tokens(model_of(None), tokenizer) == {tokenizer.eos_token_id: ["tokenizer"]}


def test_the_line_names_the_tokens_and_where_they_come_from(tokenizer):
    tokenizer.chat_template = CHATML
    line = end_tokens_line(model_of(tokenizer.eos_token_id), tokenizer)
    assert "<|endoftext|> (generation_config, tokenizer)" in line
    assert "<|im_end|> (chat template)" in line
    tokenizer.chat_template, tokenizer.eos_token = BARE, None
    assert "max_new_tokens" in end_tokens_line(model_of(None), tokenizer)
