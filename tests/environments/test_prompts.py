"""Prompts by chat templates of many kinds: system messages, think sections, the beginning token."""

from __future__ import annotations

import logging

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.policy.loading import EMBEDDED
from rl_lightning.types import UserError

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|im_end|>{% endfor %}"
START = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS + START
DROPS_SYSTEM = TURNS.replace("in messages", "in messages if m['role'] != 'system'") + START
OPENS = TURNS + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
SWITCHES = (
    TURNS + START + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)


def template(text: str, system: str = "Be brief.", kwargs=None) -> PromptTemplate:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    tokenizer.chat_template = text
    return PromptTemplate(tokenizer, system, kwargs)


def rendered(made: PromptTemplate, question: str = "What is 1 + 1?") -> str:
    return made.tokenizer.decode(made.token_ids(question))


@pytest.mark.parametrize("text", [REFUSES_SYSTEM, DROPS_SYSTEM], ids=["refuses", "drops"])
def test_without_a_system_message_its_text_starts_the_users(text, caplog):
    with caplog.at_level(logging.WARNING):
        made = template(text)
        assert rendered(made) == "<|user|>Be brief.\n\nWhat is 1 + 1?<|im_end|><|assistant|>"
        rendered(made)
    assert len([r for r in caplog.records if "data.system_prompt" in r.message]) == 1


def test_a_system_message_stays_where_the_template_has_one(caplog):
    assert rendered(template(TURNS + START, " Be brief. ")).startswith("<|system|>Be brief.<|im_end|><|user|>What")
    assert rendered(template(REFUSES_SYSTEM, "")) == "<|user|>What is 1 + 1?<|im_end|><|assistant|>"
    assert not caplog.records


def test_a_template_that_refuses_everything_gets_one_line():
    with pytest.raises(UserError, match="refuses: never") as error:
        template("{{ raise_exception('never\nagain') }}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "system", "opening"),
    [
        (OPENS, "", "<think>\n"),
        (OPENS, "Use <think> and </think>.", "<think>\n"),
        (TURNS + START, "Begin with <think>.", ""),
        (REFUSES_SYSTEM, "Begin with <think>.", ""),
        (SWITCHES, "", ""),
    ],
)
def test_the_opening_is_the_think_section_that_the_prompt_leaves_open(text, system, opening):
    assert template(text, system).opening == opening


def test_variables_reach_the_template():
    assert rendered(template(SWITCHES, "", {"enable_thinking": False})).endswith("<think>\n\n</think>\n\n")
    assert template(SWITCHES, "", {"enable_thinking": False}).opening == ""
    assert rendered(template(SWITCHES, "", {"enable_thinking": True})).endswith("<|assistant|>")


@pytest.mark.parametrize(
    "kwargs", [["enable_thinking"], 3, {"enable_thinkng": False}, {"add_generation_prompt": False}]
)
def test_wrong_variables_get_one_line(kwargs):
    with pytest.raises(UserError, match="^data.chat_template_kwargs: [^\n]*$"):
        template(SWITCHES, "", kwargs)


@pytest.mark.parametrize("writes", [True, False], ids=["template writes it", "template does not"])
def test_the_beginning_token_is_never_there_twice(writes):
    """A post-processor that adds it must not do so to what the template has written."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    tokenizer.bos_token = "<|endoftext|>"
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    assert tokenizer("1")["input_ids"][0] == bos  # or this test shows nothing
    tokenizer.chat_template = ("{{ bos_token }}" if writes else "") + TURNS + START
    ids = PromptTemplate(tokenizer, "Be brief.").token_ids("What is 1 + 1?")
    assert ids.count(bos) == int(writes)
    assert ids[0] == (bos if writes else tokenizer.convert_tokens_to_ids("<|system|>"))
