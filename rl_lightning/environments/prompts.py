"""Render a question as prompt tokens: system prompt, worked examples, the question, and how the answer begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from rl_lightning.environments.answer_formats import AnswerFormat, answer_format
from rl_lightning.environments.chat_text import QUESTION, ChatText, Conversation, PlainText, Turn, check_kwargs
from rl_lightning.types import UserError, require

ExamplesFor = Literal["all_steps", "sft_steps"]


JOINTS = 16
"""Tokens that a prompt can have more than its parts, because the tokenizer divides it otherwise where they meet."""


@dataclass
class WorkedExample:
    """A solved problem of the user's own, for the prompt."""

    question: str
    """The question."""

    answer: str
    """Its answer, without tags or box."""

    thinking: str = ""
    """The working that leads to it."""


@dataclass
class PromptSettings:
    """How a question becomes a prompt."""

    system_prompt: str | None = None
    """The system message before every question; null: one that asks for the answer's format; empty for none."""

    answer_format: str = "tags"
    """Of completions: tags, boxed, last_line, last_number, or a regular expression with a group (?P<answer>…)."""

    examples: int = 0
    """Worked examples before every question, drawn from its task; 0 or more."""

    own_examples: dict[str, list[WorkedExample]] = field(default_factory=dict)
    """By task, worked examples of your own; they are the first."""

    prefill: str = ""
    """How the answer begins; it is part of the prompt."""

    prompt_template: str = ""
    """Text with {question} in it, for base models, in place of the chat template."""

    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Variables of the chat template, such as {enable_thinking: false}."""

    examples_for: ExamplesFor = "all_steps"
    """Which prompts show the examples: all, those of the evaluation included (all_steps), or only those that the supervised first
    steps are sampled with, model.sft_steps (sft_steps)."""

    def __post_init__(self) -> None:
        self.format: AnswerFormat = answer_format(self.answer_format)
        if self.system_prompt is None:
            self.system_prompt = self.format.instructions
        self.chat_template_kwargs = check_kwargs(self.chat_template_kwargs)
        require("data.examples", self.examples, self.examples >= 0, "0 or more")
        kinds, examples_for = get_args(ExamplesFor), self.examples_for
        require("data.examples_for", examples_for, examples_for in kinds, " or ".join(kinds))
        if examples_for == "sft_steps" and not (self.examples or any(self.own_examples.values())):
            raise UserError("data.examples_for: sft_steps has no effect without examples; set data.examples")
        if self.prompt_template and self.chat_template_kwargs:
            raise UserError("data.chat_template_kwargs: has no effect with data.prompt_template; leave one of them out")

    @property
    def always_shows_examples(self) -> bool:
        """Whether every prompt shows the examples, also those of an evaluation."""
        return self.examples_for == "all_steps"

    def template(self, tokenizer: Any) -> PromptTemplate:
        """The template of a model, without examples yet.

        Raises:
            UserError: the settings do not fit the model's chat template.
        """
        assert self.system_prompt is not None
        of = self.system_prompt, self.chat_template_kwargs, self.prefill, self.prompt_template
        return PromptTemplate(tokenizer, *of)

    def in_evaluation(self) -> dict[str, Any]:
        """The settings by name that change the prompts of an evaluation, where they are not the defaults."""
        hidden = () if self.always_shows_examples else ("examples", "own_examples", "examples_for")
        return {name: value for name, value in self.changed().items() if name not in hidden}

    def in_force(self) -> dict[str, Any]:
        """The settings by name; those that are never left out, and the others where they are not the defaults."""
        return {"system_prompt": self.system_prompt, "answer_format": self.answer_format, **self.changed()}

    def changed(self) -> dict[str, Any]:
        """The settings that are not the defaults, besides the system prompt."""
        defaults = asdict(PromptSettings())
        return {k: v for k, v in asdict(self).items() if v != defaults[k] and k != "system_prompt"}


class PromptTemplate:
    """Renders questions as prompts.

    Args:
        tokenizer: a transformers tokenizer.
        system_prompt: the system message; if empty, there is none.
        kwargs: variables of the chat template, such as `enable_thinking`.
        prefill: how the answer begins.
        plain: text with {question} in it, in place of the chat template; empty: the chat template.

    Attributes:
        opening: what the prompt has already written of the assistant's turn: an open think section of the template, such as
            "<think>" and a line feed, and `prefill`. A reader of a completion needs it.

    Raises:
        UserError: there is no chat template, it refuses the messages, does not read one of the variables, or opens the think
            section that `prefill` opens again.
    """

    def __init__(
        self,
        tokenizer: Any,
        system_prompt: str = "",
        kwargs: Mapping[str, Any] | None = None,
        prefill: str = "",
        plain: str = "",
    ) -> None:
        self.tokenizer, self.prefill = tokenizer, prefill
        self.conversation: Conversation
        if plain:
            self.conversation = PlainText(plain, system_prompt)
        elif tokenizer.chat_template:
            self.conversation = ChatText(tokenizer, system_prompt, check_kwargs({} if kwargs is None else kwargs))
        else:
            raise UserError(
                f"policy.model_name_or_path: {tokenizer.name_or_path!r} has no chat template; use an instruction-tuned model "
                '(…-Instruct), or set data.prompt_template, such as "Question: {question}\\nAnswer: "'
            )
        opened = self.conversation.opening
        if opened and "<think>" in prefill:
            raise UserError(f"data.prefill: {prefill!r} opens <think>, which the chat template has already opened")
        self.opening = opened + prefill
        self._examples: Mapping[str, Sequence[Turn]] = {}

    def show(self, examples: Mapping[str, Sequence[Turn]]) -> None:
        """Put worked examples before every question of a task.

        Args:
            examples: by task, questions and the assistant's texts that answer them.
        """
        if any(examples.values()) and isinstance(self.conversation, ChatText):
            self.conversation.try_examples()
        self._examples = examples

    def text(self, question: str, task: str = "") -> str:
        """The whole prompt as text, up to where the model continues it; see `token_ids`."""
        return self.conversation.text(self._examples.get(task, ()), question.strip()) + self.prefill

    def token_ids(self, question: str, task: str = "") -> tuple[int, ...]:
        """The prompt's token ids, up to where the model continues it.

        Args:
            question: the text of the user's message.
            task: its task, for the worked examples; without one there are none.

        Raises:
            UserError: the model's chat template refuses the messages.
        """
        special = self.conversation.adds_special_tokens
        return tuple(self.tokenizer(self.text(question, task), add_special_tokens=special)["input_ids"])

    def tokens_around(self, task: str = "") -> int:
        """The tokens of a prompt of a task besides those of its question; where the two meet there may be up to JOINTS more."""
        return len(self.token_ids(QUESTION, task)) - len(
            self.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
        )
