"""Put the system prompt that a policy was trained with into the chat template, where that gives the very prompts of the training.

A policy answers otherwise without its system prompt, and most programs send a question alone. A template that adds the prompt where
no system message is given changes nothing else. Worked examples and a prefill have no place in a template.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from rl_lightning.checkpointing.atomic_files import write_atomically
from rl_lightning.environments.prompts import PromptSettings

_QUESTIONS = ("What is 5 + 7?", "  Two lines,\nand 'quotes' \"here\"?  ")
_ADDED = (
    "{{% if not messages or messages[0]['role'] != 'system' %}}"
    "{{% set messages = [{{'role': 'system', 'content': {prompt}}}] + messages %}}{{% endif %}}"
)


def is_the_trained_prompt(tokenizer: Any, settings: PromptSettings, has_examples: bool) -> bool:
    """Whether a user's message alone, by the tokenizer's chat template, is the prompt that the policy was trained with, token for
    token.

    Args:
        tokenizer: with the template.
        settings: of the run.
        has_examples: whether prompts show worked examples.
    """
    if has_examples or settings.prompt_template:
        return False
    trained = settings.template(tokenizer)
    try:
        return all(_bare(tokenizer, each) == trained.token_ids(each) for each in _QUESTIONS)
    except TemplateError:
        return False


def template_with_prompt(tokenizer: Any, settings: PromptSettings, has_examples: bool) -> str | None:
    """The chat template with the run's system prompt for conversations without one; None where it would not give the prompts of
    the training, or change conversations that have one, or is not needed.

    Args:
        tokenizer: with the base's template.
        settings: of the run.
        has_examples: whether prompts show worked examples.
    """
    own = tokenizer.chat_template
    if not isinstance(own, str) or not settings.system_prompt or has_examples or settings.prompt_template:
        return None
    trained, added = settings.template(tokenizer), _ADDED.format(prompt=json.dumps(settings.system_prompt)) + own
    system = {"role": "system", "content": settings.system_prompt}
    other = {"role": "system", "content": "Be brief."}
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    try:
        same = all(_bare(tokenizer, each, added) == trained.token_ids(each) for each in _QUESTIONS)
        same &= _text(tokenizer, turns, added) == _text(tokenizer, [system, *turns], own)
        same &= _text(tokenizer, [other, *turns], added) == _text(tokenizer, [other, *turns], own)
    except TemplateError:
        return None
    return added if same else None


def write_template(directory: Path, template: str) -> None:
    """Replace the chat template of a directory with a tokenizer, where that keeps it."""
    file, config = directory / "chat_template.jinja", directory / "tokenizer_config.json"
    if file.is_file():
        write_atomically(file, template)
        return
    found = json.loads(config.read_text(encoding="utf-8"))
    write_atomically(config, json.dumps(found | {"chat_template": template}, indent=2, ensure_ascii=False) + "\n")


def _bare(tokenizer: Any, question: str, template: str | None = None) -> tuple[int, ...]:
    text = _text(tokenizer, [{"role": "user", "content": question.strip()}], template)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _text(tokenizer: Any, messages: list[dict[str, str]], template: str | None) -> str:
    return tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
