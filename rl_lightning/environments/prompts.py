"""Render a question as prompt tokens, with the model's own chat template."""

from __future__ import annotations

from typing import Any

from jinja2.exceptions import TemplateError

from rl_lightning.types import UserError

SYSTEM_PROMPT = (
    "Think step by step inside <think> and </think>, then give only the final answer inside <answer> and </answer>, "
    "like this: <think>your working</think> <answer>your answer</answer>"
)


class PromptTemplate:
    """Renders questions as chat prompts.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        system_prompt: the system message; if empty, there is none.
    """

    def __init__(self, tokenizer: Any, system_prompt: str = SYSTEM_PROMPT) -> None:
        self.tokenizer, self.system_prompt = tokenizer, system_prompt

    def token_ids(self, question: str) -> tuple[int, ...]:
        """The prompt's token ids, up to the start of the assistant's reply.

        Args:
            question: the text of the user's message.

        Raises:
            UserError: the model's chat template refuses the messages, for instance a system message.
        """
        messages = [{"role": "user", "content": question.strip()}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        try:
            return tuple(
                self.tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=True, return_dict=False
                )
            )
        except TemplateError as error:
            raise UserError(
                f'data.system_prompt: the model\'s chat template refuses: {error}; try data.system_prompt: ""'
            ) from error
