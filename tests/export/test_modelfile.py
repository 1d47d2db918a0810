"""Ollama's Modelfile: the chat template in Go's language, stops, system prompt."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from rl_lightning.export.modelfile import go_template, modelfile
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.types import UserError


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(EMBEDDED["tiny"])


def rendered(template: str, system: str, question: str) -> str:
    """What Ollama sends to the model: the template up to the answer, with its variables filled in."""
    before, _, _ = template.partition("{{ .Response }}")
    return before.replace("{{ .System }}", system).replace("{{ .Prompt }}", question)


@pytest.mark.parametrize("system", ["Be brief.", ""])
def test_the_go_template_gives_the_chat_template_s_text(tokenizer, system):
    messages = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": "5 + 7?"}]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert rendered(go_template(tokenizer, bool(system)), system, "5 + 7?") == expected


def test_a_template_that_drops_or_repeats_a_message_has_no_go_template(tokenizer):
    tokenizer.chat_template = "{{ messages[-1]['content'] }}{{ messages[-1]['content'] }}"
    assert go_template(tokenizer, False) is None
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    assert go_template(tokenizer, True) is None
    tokenizer.chat_template = None
    assert go_template(tokenizer, False) is None


def test_the_begin_token_that_llama_cpp_adds_is_not_written_again(tokenizer):
    tokenizer.chat_template = "{{ bos_token }}<{{ messages[-1]['content'] }}>"
    tokenizer.bos_token = "<|endoftext|>"
    assert go_template(tokenizer, False).startswith("<|endoftext|><{{ .Prompt }}>")  # nothing else adds it

    class Adding:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text):
            return {"input_ids": [tokenizer.bos_token_id]}

    assert go_template(Adding(), False).startswith("<{{ .Prompt }}>")


@pytest.mark.parametrize("text", ['three """ quotes', 'ends in a "quote"'])
def test_what_a_modelfile_cannot_hold_is_refused(tokenizer, text):
    with pytest.raises(UserError, match="three quotes in a row, or one at its end"):
        modelfile("model.gguf", tokenizer, text, [], {})


def test_the_file_has_system_prompt_stops_and_parameters(tokenizer):
    tokenizer.chat_template = "<{{ messages[-1]['content'] }}>"
    text = modelfile("model-q8_0.gguf", tokenizer, 'Say "yes".', [617, 616], {"num_ctx": 1064, "temperature": 0.7})
    assert text == (
        'FROM ./model-q8_0.gguf\nSYSTEM """Say "yes"."""\nPARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\n'
        "PARAMETER num_ctx 1064\nPARAMETER temperature 0.7\n"
    )
