"""Prompts by chat templates of many kinds: system messages, think sections, the beginning token."""

from __future__ import annotations

import logging

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.policy.config import EMBEDDED
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


SOLVED = {"sums": [("What is 2 + 1?", "<think>2 + 1 is 3.</think> <answer>3</answer>")]}
DROPS_THINKING = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}{{ m['content'].split('</think>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>{% endfor %}" + START
)
ONE_TURN = "{% if messages | length > 2 %}{{ raise_exception('one question') }}{% endif %}" + TURNS + START


def with_examples(made: PromptTemplate) -> str:
    made.show(SOLVED)
    return made.tokenizer.decode(made.token_ids("What is 1 + 1?", "sums"))


def test_examples_are_earlier_turns_of_the_task(caplog):
    made = template(TURNS + START)
    assert with_examples(made) == (
        "<|system|>Be brief.<|im_end|><|user|>What is 2 + 1?<|im_end|><|assistant|><think>2 + 1 is 3.</think> "
        "<answer>3</answer><|im_end|><|user|>What is 1 + 1?<|im_end|><|assistant|>"
    )
    assert "2 + 1" not in made.text("What is 1 + 1?", "another task")
    assert "2 + 1" not in made.text("What is 1 + 1?")
    assert not caplog.records


@pytest.mark.parametrize("text", [DROPS_THINKING, ONE_TURN], ids=["drops thinking", "one turn"])
def test_examples_that_a_template_does_not_keep_stand_in_the_users_message(text, caplog):
    with caplog.at_level(logging.WARNING):
        shown = with_examples(template(text, ""))
    assert shown == (
        "<|user|>Question: What is 2 + 1?\n\nAnswer: <think>2 + 1 is 3.</think> <answer>3</answer>\n\n"
        "Question: What is 1 + 1?<|im_end|><|assistant|>"
    )
    assert [r.message.partition(":")[0] for r in caplog.records] == ["data.examples"]


def test_a_system_text_without_a_role_comes_before_the_examples(caplog):
    assert with_examples(template(REFUSES_SYSTEM)).startswith("<|user|>Be brief.\n\nWhat is 2 + 1?<|im_end|>")


@pytest.mark.parametrize(("text", "opening"), [(TURNS + START, "Well:"), (OPENS, "<think>\nWell:")])
def test_a_prefill_is_the_end_of_the_prompt_and_the_start_of_the_text_that_is_read(text, opening):
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    tokenizer.chat_template = text
    made = PromptTemplate(tokenizer, prefill="Well:")
    assert rendered(made).endswith(f"<|assistant|>{opening}")
    assert made.opening == opening


def test_a_think_section_is_not_opened_twice():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    tokenizer.chat_template = OPENS
    with pytest.raises(UserError, match="data.prefill: '<think>' opens <think>, which the chat template has already"):
        PromptTemplate(tokenizer, prefill="<think>")


@pytest.mark.parametrize("has_template", [True, False])
def test_a_plain_template_takes_the_place_of_a_chat_template(has_template):
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    tokenizer.chat_template = TURNS if has_template else None
    made = PromptTemplate(tokenizer, "Sums.", plain="Q: {question}\nA: ", prefill="<think>")
    assert with_examples(made) == (
        "Sums.\n\nQ: What is 2 + 1?\nA: <think>2 + 1 is 3.</think> <answer>3</answer>\n\nQ: What is 1 + 1?\nA: <think>"
    )
    assert made.opening == "<think>"


def test_a_plain_template_leaves_the_beginning_token_to_the_tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    bos = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    ids = PromptTemplate(tokenizer, plain="{question}").token_ids("What is 1 + 1?")
    assert ids[0] == bos
    assert ids.count(bos) == 1


@pytest.mark.parametrize("plain", ["Q:", "{question} {question}"])
def test_a_plain_template_has_the_question_once(plain):
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    with pytest.raises(UserError, match="^data.prompt_template: .* a text with {question} once$"):
        PromptTemplate(tokenizer, plain=plain)


def test_a_base_model_is_told_what_to_set():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template; .* or set data.prompt_template, such as") as error:
        PromptTemplate(tokenizer)
    assert "\n" not in str(error.value)
