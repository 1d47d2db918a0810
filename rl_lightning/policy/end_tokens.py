"""The tokens that end a completion: those that the model and its tokenizer name, and the one that the chat template writes."""

from __future__ import annotations

from typing import Any

import torch
from jinja2.exceptions import TemplateError
from torch import Tensor

_ANSWER = "The answer is 12."
"""An assistant's turn to render; what the template writes after it ends the turn."""


def end_tokens(model: Any, tokenizer: Any) -> dict[int, list[str]]:
    """All tokens that end a completion, each with the places that name it.

    Args:
        model: a transformers model, with its configs.
        tokenizer: its tokenizer.
    """
    named = {
        "generation_config": model.generation_config.eos_token_id,
        "config": getattr(model.config.get_text_config(), "eos_token_id", None),
        "tokenizer": tokenizer.eos_token_id,
        "chat template": _end_of_turn(tokenizer),
    }
    found: dict[int, list[str]] = {}
    for source, ids in named.items():
        for id_ in listed(ids):
            found.setdefault(id_, []).append(source)
    return found


def listed(eos_token_id: int | list[int] | None) -> list[int]:
    """The ids of a config's `eos_token_id`, which may be one, several or none."""
    return eos_token_id if isinstance(eos_token_id, list) else [] if eos_token_id is None else [eos_token_id]


def end_token_ids(model: Any, tokenizer: Any) -> Tensor:
    """(E,) int64, the sorted ids of all tokens that end a completion; see `end_tokens`."""
    return torch.tensor(sorted(end_tokens(model, tokenizer)), dtype=torch.int64)


def end_tokens_line(model: Any, tokenizer: Any) -> str:
    """One line for the user: the text of each token that ends a completion, and where it comes from."""
    found = end_tokens(model, tokenizer)
    if not found:
        return "no token ends a completion: each one runs to max_new_tokens"
    said = (f"{tokenizer.convert_ids_to_tokens(id_)} ({', '.join(found[id_])})" for id_ in sorted(found))
    return f"a completion ends at {', '.join(said)}"


def _end_of_turn(tokenizer: Any) -> int | None:
    """The first special or added token after an assistant's LAST turn: harmony's earlier messages end in another one. None
    where the template refuses the messages or writes no such token."""
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": "What is 5 + 7?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    except TemplateError:
        return None
    after = rendered.rpartition(_ANSWER)[2] if _ANSWER in rendered else ""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return next((id_ for id_ in tokenizer(after, add_special_tokens=False)["input_ids"] if id_ in special), None)
