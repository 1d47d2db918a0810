"""Ollama's Modelfile beside a GGUF file: template, stops, system prompt, length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from rl_lightning.types import UserError

MODELFILE = "Modelfile"

_MARKS = ("\x01system\x01", "\x01user\x01", "\x01assistant\x01")
_GO = ("{{ .System }}", "{{ .Prompt }}", "{{ .Response }}")


def modelfile(file: str, tokenizer: Any, system_prompt: str, ends: Sequence[int], settings: dict[str, float]) -> str:
    """The text of a Modelfile.

    Ollama's templates are of Go. One of a single turn is made by rendering the chat template around marks, where that gives the
    same text around any message; else it is left out, and Ollama takes the one in the GGUF file as far as it knows that.

    Args:
        file: the GGUF file's name.
        tokenizer: with the chat template.
        system_prompt: of the run; empty: none.
        ends: tokens at which a completion ends.
        settings: parameters by Ollama's names.
    """
    lines = [f"FROM ./{file}"]
    if (template := go_template(tokenizer, bool(system_prompt))) is not None:
        lines.append(f"TEMPLATE {quoted(template)}")
    if system_prompt:
        lines.append(f"SYSTEM {quoted(system_prompt)}")
    lines += [f"PARAMETER stop {quoted(tokenizer.convert_ids_to_tokens(end))}" for end in ends]
    lines += [f"PARAMETER {name} {value:g}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def go_template(tokenizer: Any, has_system: bool) -> str | None:
    """The chat template for one turn in Go's language; None where there is no such.

    Args:
        tokenizer: with the chat template.
        has_system: whether a system message comes first.
    """
    if not tokenizer.chat_template:
        return None
    system, user, assistant = _MARKS
    first = [{"role": "system", "content": system}] if has_system else []
    turn = {"role": "user", "content": user}
    try:
        asked = tokenizer.apply_chat_template([*first, turn], add_generation_prompt=True, tokenize=False)
        answered = tokenizer.apply_chat_template(
            [*first, turn, {"role": "assistant", "content": assistant}], tokenize=False
        )
    except TemplateError:
        return None
    wanted = (*((system,) if has_system else ()), user)
    after = answered[len(asked) + len(assistant) :] if answered.startswith(asked + assistant) else ""
    text = asked + assistant + after.removesuffix("\n")
    if any(asked.count(mark) != 1 for mark in wanted) or any(brace in text for brace in ("{{", "}}", '"""')):
        return None
    begin = tokenizer.bos_token_id
    if begin is not None and tokenizer("")["input_ids"][:1] == [begin]:
        text = text.removeprefix(tokenizer.bos_token)  # llama.cpp adds it to every prompt
    for mark, name in zip(_MARKS, _GO, strict=True):
        text = text.replace(mark, name)
    return text


def quoted(text: str) -> str:
    """The text as a value in a Modelfile.

    Raises:
        UserError: it has three quotes in a row, or a quote at the end of what needs three.
    """
    if "\n" not in text and '"' not in text:
        return f'"{text}"'
    if '"""' in text or text.endswith('"'):
        raise UserError(f"export: a Modelfile cannot hold {text!r}: it has three quotes in a row, or one at its end")
    return f'"""{text}"""'
