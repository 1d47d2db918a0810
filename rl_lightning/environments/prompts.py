"""Render a question as prompt tokens, with the model's own chat template."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from jinja2.exceptions import TemplateError

from rl_lightning.types import UserError, require

log = logging.getLogger(__name__)

SYSTEM_PROMPT = (
    "Think step by step inside <think> and </think>, then give only the final answer inside <answer> and </answer>, "
    "like this: <think>your working</think> <answer>your answer</answer>"
)

_QUESTION = "What is 5 + 7?"
"""A question to try the template with."""


class PromptTemplate:
    """Renders questions as chat prompts.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        system_prompt: the system message; if empty, there is none. Where the template refuses or drops system messages, it is the
            start of the user's message, and a warning says so.
        kwargs: variables of the chat template, such as `enable_thinking`.

    Attributes:
        opening: what the prompt has already written of the assistant's turn, if that is an open think section, such as
            "<think>" and a line feed; else empty. A reader of a completion needs it.

    Raises:
        UserError: the chat template refuses the messages, or does not read one of the variables.
    """

    def __init__(
        self, tokenizer: Any, system_prompt: str = SYSTEM_PROMPT, kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self.tokenizer, self.system_prompt, self.kwargs = (
            tokenizer,
            system_prompt,
            check_kwargs({} if kwargs is None else kwargs),
        )
        self._refuse_unread()
        self._system_role = True
        if system_prompt and not self._keeps_system():
            log.warning(
                "data.system_prompt: the chat template has no system message: it starts the user's message instead"
            )
            self._system_role = False
        after = self._render(_QUESTION).rpartition(_QUESTION)[2]
        start = after.rfind("<think>")
        self.opening = after[start:] if start >= 0 and "</think>" not in after[start:] else ""

    def token_ids(self, question: str) -> tuple[int, ...]:
        """The prompt's token ids, up to the start of the assistant's reply.

        Args:
            question: the text of the user's message.

        Raises:
            UserError: the model's chat template refuses the messages.
        """
        return tuple(self._render(question.strip(), tokenize=True, return_dict=False))

    def _render(self, question: str, tokenize: bool = False, **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(
                self._messages(question), add_generation_prompt=True, tokenize=tokenize, **options, **self.kwargs
            )
        except TemplateError as error:
            raise UserError(f"data: the model's chat template refuses: {' '.join(str(error).split())}") from error

    def _messages(self, question: str) -> list[dict[str, str]]:
        if self.system_prompt and not self._system_role:
            return [{"role": "user", "content": f"{self.system_prompt}\n\n{question}"}]
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*system, {"role": "user", "content": question}]

    def _keeps_system(self) -> bool:
        try:
            return self.system_prompt.strip() in self._render(_QUESTION)
        except UserError:  # of the system message, or of all messages: the next rendering shows which
            return False

    def _refuse_unread(self) -> None:
        """A misspelt variable would silently have no effect."""
        template = self.tokenizer.get_chat_template() if self.kwargs else ""
        for name in self.kwargs:
            if name in ("messages", "add_generation_prompt") or not re.search(rf"\b{re.escape(name)}\b", template):
                raise UserError(
                    f"data.chat_template_kwargs: {name!r} is not a variable that the chat template lets you set"
                )


def check_kwargs(kwargs: Any) -> dict[str, Any]:
    """The chat template's variables as a dict.

    Raises:
        UserError: it is not a mapping from names to values.
    """
    names = isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)
    require(
        "data.chat_template_kwargs", kwargs, names, "a mapping from names to values, such as {enable_thinking: false}"
    )
    return dict(kwargs)
