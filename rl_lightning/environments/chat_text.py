"""Write a conversation as text: by the model's chat template, or by a plain template for a base model without one."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jinja2.exceptions import TemplateError

from rl_lightning.types import UserError, require

log = logging.getLogger(__name__)

Turn = tuple[str, str]
"""A question, and the assistant's text that answers it."""

QUESTION = "What is 5 + 7?"
"""A question to try a template with."""

_EXAMPLE = ("What is 2 + 1?", "<think>2 + 1 is 3.</think> <answer>3</answer>")
"""A solved question to try a template with."""


class Conversation(Protocol):
    """Writes conversations as text.

    Attributes:
        adds_special_tokens: whether the tokenizer is to add the beginning token, because the text has none.
        opening: what the text has already written of the last answer: an open think section, or nothing.
    """

    adds_special_tokens: bool
    opening: str

    def text(self, solved: Sequence[Turn], question: str) -> str:
        """The solved questions, then the question, up to the start of its answer.

        Raises:
            UserError: the template refuses them.
        """
        ...


class ChatText:
    """Conversations by the chat template of a tokenizer.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        system_prompt: the system message; if empty, there is none. Where the template refuses or drops system messages, it is the
            start of the first user's message, and a warning says so.
        kwargs: variables of the chat template, such as `enable_thinking`.

    Raises:
        UserError: the chat template refuses the messages, or does not read one of the variables.
    """

    adds_special_tokens = False  # the template writes the beginning token itself

    def __init__(self, tokenizer: Any, system_prompt: str, kwargs: Mapping[str, Any]) -> None:
        self.tokenizer, self.system_prompt, self.kwargs = tokenizer, system_prompt, dict(kwargs)
        self._refuse_unread()
        self._system_role = self._keeps_turns = True
        if system_prompt and not self._keeps(system_prompt):
            log.warning(
                "data.system_prompt: the chat template has no system message: it starts the user's message instead"
            )
            self._system_role = False
        after = self.text([], QUESTION).rpartition(QUESTION)[2]
        start = after.rfind("<think>")
        self.opening = after[start:] if start >= 0 and "</think>" not in after[start:] else ""

    def try_examples(self) -> None:
        """Find out whether the template keeps an earlier answer as it is; where it does not, solved questions stand as text in the
        user's message, and a warning says so. Templates of thinking models drop the thinking of earlier turns."""
        if not self._keeps(_EXAMPLE[1], [_EXAMPLE]):
            log.warning(
                "data.examples: the chat template drops or changes earlier answers: they stand in the user's message instead"
            )
            self._keeps_turns = False

    def text(self, solved: Sequence[Turn], question: str) -> str:
        """See `Conversation`."""
        try:
            return self.tokenizer.apply_chat_template(
                self._messages(solved, question), add_generation_prompt=True, tokenize=False, **self.kwargs
            )
        except TemplateError as error:
            raise UserError(f"data: the model's chat template refuses: {' '.join(str(error).split())}") from error

    def _messages(self, solved: Sequence[Turn], question: str) -> list[dict[str, str]]:
        if not self._keeps_turns:
            earlier = "".join(f"Question: {asked}\n\nAnswer: {answer}\n\n" for asked, answer in solved)
            solved, question = [], f"{earlier}Question: {question}" if earlier else question
        texts = [text for turn in solved for text in turn] + [question]
        if self.system_prompt and not self._system_role:
            texts[0] = f"{self.system_prompt}\n\n{texts[0]}"
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt and self._system_role else []
        return system + [
            {"role": ("user", "assistant")[number % 2], "content": content} for number, content in enumerate(texts)
        ]

    def _keeps(self, content: str, solved: Sequence[Turn] = ()) -> bool:
        try:
            return content.strip() in self.text(solved, QUESTION)
        except UserError:  # of this message, or of all messages: the next rendering shows which
            return False

    def _refuse_unread(self) -> None:
        """A misspelt variable would silently have no effect."""
        template = self.tokenizer.get_chat_template() if self.kwargs else ""
        for name in self.kwargs:
            if name in ("messages", "add_generation_prompt") or not re.search(rf"\b{re.escape(name)}\b", template):
                raise UserError(
                    f"data.chat_template_kwargs: {name!r} is not a variable that the chat template lets you set"
                )


class PlainText:
    """Conversations by a plain template, for a base model.

    Args:
        template: the text of a question up to its answer, with {question} where the question stands.
        system_prompt: the text before all questions; may be empty.

    Raises:
        UserError: the template has no {question}.
    """

    adds_special_tokens = True
    opening = ""

    def __init__(self, template: str, system_prompt: str) -> None:
        require("data.prompt_template", template, template.count("{question}") == 1, "a text with {question} once")
        self._before, _, self._after = template.partition("{question}")
        self._system = f"{system_prompt}\n\n" if system_prompt else ""

    def text(self, solved: Sequence[Turn], question: str) -> str:
        """See `Conversation`."""
        earlier = "".join(f"{self._asked(asked)}{answer}\n\n" for asked, answer in solved)
        return f"{self._system}{earlier}{self._asked(question)}"

    def _asked(self, question: str) -> str:
        return f"{self._before}{question}{self._after}"


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
