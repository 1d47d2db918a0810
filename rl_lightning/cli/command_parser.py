"""The parser of the commands that are not Lightning's."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

from rl_lightning.cli.program import program
from rl_lightning.types import UserError

_REQUIRED = re.compile(r"the following arguments are required: ")
_CHOICE = re.compile(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)")
_NO_NUMBER = re.compile(r"argument (\S+): invalid int value: '(.*)'")


class CommandParser(argparse.ArgumentParser):
    """The parser of a command.

    Args:
        name: the command.
        description: what it does.
        examples: of the words after it.
    """

    def __init__(self, name: str, description: str, *examples: str) -> None:
        shown = "\n".join(f"  {program()} {name} {example}" for example in examples)
        super().__init__(
            prog=f"{program()} {name}",
            description=description,
            epilog=f"examples:\n{shown}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._name, self._examples = name, examples

    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        """Parse, and name the option that was meant by one that does not exist."""
        given = [word for word in args or () if word.startswith("--") and word != "--"]
        if unknown := [word for word in given if word.partition("=")[0] not in self._option_string_actions]:
            self.refuse_unknown(unknown)  # first: what is missing is often what was mistyped
        found, others = self.parse_known_args(args, namespace)
        if others:
            self.refuse_unknown(others)
        return found

    def refuse_unknown(self, words: Sequence[str]) -> NoReturn:
        """Raise an error for words that mean nothing here."""
        options = [option for option in self._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(words[0].partition("=")[0], options, n=1)
        self.error(f"unrecognized arguments: {' '.join(words)}" + (f"; did you mean {near[0]}?" if near else ""))

    def error(self, message: str) -> NoReturn:
        """Raise the mistake as a UserError."""
        if _REQUIRED.match(message):
            message += f"; for example: {self._name} {self._examples[0]}"
        if found := _NO_NUMBER.match(message):
            message = f"{found[1]}: {found[2]!r} is not allowed; it must be a whole number"
        if found := _CHOICE.match(message):
            choices = [choice.strip(" '") for choice in found[3].split(",")]
            message = f"{found[1]}: {found[2]!r} is not allowed; it must be {', '.join(choices[:-1])} or {choices[-1]}"
            if near := difflib.get_close_matches(found[2], choices, n=1):
                message += f"; did you mean {near[0]}?"
        raise UserError(" ".join(f"{self._name}: {message}".split()))
