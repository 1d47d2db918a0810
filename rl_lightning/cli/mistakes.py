"""A mistake in a setting as one line: the file and line it is in, what is allowed, and the nearest right name.

jsonargparse's own messages name the Python type that was expected, and neither file nor remedy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from rl_lightning.cli.config_places import place_of_setting
from rl_lightning.cli.fit_help import TOPICS, setting_of, topic_of
from rl_lightning.cli.shipped_configs import is_config
from rl_lightning.types import UserError

_UNKNOWN_WORD = re.compile(r"^unrecognized arguments: (\S+)")
_UNKNOWN_KEY = re.compile(r"^(?:Subcommand '\w+' does not accept option|Group '\w+' does not accept option) '([^']+)'")
_UNKNOWN_INSIDE = re.compile(r"Option '([^']+)' is not accepted")
_REQUIRED = re.compile(r"^the following arguments are required: (?:\w+\.)?data\.datasets")
_VALUE = re.compile(r'^(?:Parser key "([\w.]+)"|([\w.]+)): (?:.* )?Expected an? (.+?)\. Got value: (.*)$')
_NO_CLASS = re.compile(r'^Parser key "([\w.]+)":.* Expected a dot import path string: (\S+)')
_NO_PATH = re.compile(r"- Expected a path but .* either not accessible or invalid - ")
"""How jsonargparse says that a value is no file of settings, before it says what is wrong with the value."""

_OR_NULL = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - (.*?) - Expected a <class 'NoneType'>"
)
"""How it says what is wrong with a value that may also be null."""

_OR_CALLABLE = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: \[[^]]*\.Reward'>, collections\.abc\.Callable\[.*?\]\] Errors: "
    r"- (?:Problem with given class_path )?(.*?)(?: - (?:Type collections\.abc\.Callable|Expected a dot import path|\1).*)?$"
)
"""How it says what is wrong with a reward, which may be a class or a function, once for each of the two."""

_INSIDE = re.compile(r'^Parser key "([\w.]+)": (\w+: no such setting.*?)(?: - Expected .*)?$')
"""What it makes of `_unknown_inside` where a setting may be of several types."""

_MANY = 20
"""More names than this are not listed."""

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "settings by name",
}


def mistake(parser: Any, message: str, words: Sequence[str]) -> UserError:
    """The mistake that jsonargparse reports.

    Args:
        parser: that has the settings.
        message: of jsonargparse.
        words: the command line, with the paths of configs.
    """
    line = " ".join(message.split()).partition(" Given value type:")[0]
    line = _OR_CALLABLE.sub(r"\1", _OR_NULL.sub(r"\1", _NO_PATH.sub("", line)))
    if parser._subcommands_action is not None:  # fit or validate
        (parser,) = parser._subcommands_action._name_parser_map.values()
    names = [name for name in map(setting_of, parser._actions) if name and not re.search(r"(^|\.)help$", name)]
    if found := _UNKNOWN_WORD.search(line):
        return UserError(_unknown_word(found[1], names))
    if found := _UNKNOWN_KEY.search(line):
        return located(UserError(f"{found[1]}: no such setting; {_nearest(found[1], names)}"), words)
    if found := _NO_CLASS.search(line):
        return located(UserError(_no_class(parser, *found.groups())), words)
    if _REQUIRED.search(line):
        return UserError(
            "no tasks are given: name a config, such as --config quickstart, or give --data.datasets={chain_sum: {}}; "
            "`fit --help` shows more"
        )
    if found := _UNKNOWN_INSIDE.search(line):
        return located(UserError(_unknown_inside(found[1], names)), words)
    if found := _VALUE.search(line):
        key, expected, value = found[1] or found[2], found[3], found[4]
        shown = "null" if value == "None" else repr(value)
        return located(UserError(f"{key}: {shown} is not allowed; it must be {_allowed(expected, value)}"), words)
    if found := _INSIDE.search(line):
        return located(UserError(f"{found[1]}.{found[2]}"), words)
    return located(UserError(re.sub(r'^Parser key "([\w.]+)":', r"\1:", line)), words)


def located(error: UserError, words: Sequence[str]) -> UserError:
    """The error with the file and line of the setting that it begins with, unless a word of the command line gives that."""
    if found := re.match(r"((?:[\w-]+\.)+[\w-]+)(?:\[\d+\])?:", str(error)):
        for section in ("", "data.", "model."):  # some checks leave the section out
            if place := place_of_setting(f"{section}{found[1]}", words):
                return UserError(f"{place}: {error}")
    return error


def refuse_null_and_plain(parser: Any, config: Any, words: Sequence[str]) -> None:
    """Refuse a setting that is null where it has another default and null is not allowed, and a value in place of settings by
    name: jsonargparse lets both pass.

    Args:
        parser: of `fit` or `validate`.
        config: what it has read.
        words: the command line.

    Raises:
        UserError: names the setting.
    """
    for action in parser._actions:
        name = setting_of(action)
        if not name or name not in config:
            continue
        value, hint = config[name], getattr(action, "_typehint", None)
        if hasattr(action, "basetype") and not hasattr(value, "__dict__"):
            raise located(UserError(f"{name}: {value!r} is not allowed; it must be settings by name"), words)
        if value is None and hint is not None and action.default is not None and not _may_be_null(hint):
            raise located(
                UserError(f"{name}: null is not allowed; leave it out for its default, {action.default}"), words
            )


def _may_be_null(hint: Any) -> bool:
    return hint is Any or type(None) in get_args(hint)


def _unknown_word(word: str, names: Sequence[str]) -> str:
    if not word.startswith("-"):
        hint = (
            f"did you mean --config {word}?" if is_config(word) else "a setting is --NAME=VALUE, a config --config FILE"
        )
        return f"{word!r} belongs to no setting; {hint}"
    name = word.partition("=")[0]
    return f"{name}: no such setting; {_nearest(name.lstrip('-'), names, '--')}"


def _nearest(name: str, names: Sequence[str], before: str = "") -> str:
    """The setting that was meant, and how to see all of them."""
    last: dict[str, list[str]] = {}
    for each in names:
        last.setdefault(each.rpartition(".")[2], []).append(each)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
    if not near:
        ends = difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.7)
        near = last[ends[0]] if ends else difflib.get_close_matches(name, names, n=1)
    if not near:
        return f"fit --help shows what there is, by the topics {', '.join(TOPICS)}"
    meant = " or ".join(before + each for each in near[:3])
    return f"did you mean {meant}? `fit --help {topic_of(near[0])}` shows what there is"


def _no_class(parser: Any, setting: str, value: str) -> str:
    action = next((each for each in parser._actions if each.dest == setting), None)
    shipped = re.findall(r"[\w.]*?(\w+)(?:,|$)", action.extra_help().partition(": ")[2]) if action else []
    lower = {name.lower(): name for name in shipped}
    near = difflib.get_close_matches(value.rpartition(".")[2].lower(), lower, n=1)
    hint = f"did you mean {lower[near[0]]}? Else " if near else ""
    shown = f"fit --{setting}.help CLASS shows it" if "." in setting else "docs/own_tasks.md lists them"
    own = "give the path of your own class, such as my_package.MyClass"
    return f"{setting}: there is no class {value!r}; {hint}name one that ships ({shown}), or {own}"


def _unknown_inside(key: str, names: Sequence[str]) -> str:
    """A setting that a class does not have; the parser is the class's own."""
    near = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    there = f"there are {', '.join(names)}" if len(names) <= _MANY else f"there are {len(names)}"
    return f"{key}: no such setting; {hint}{there}"


def in_its_setting(error: UserError) -> UserError:
    """The error that a class's own parser has raised, with the setting before it that has the class."""
    trace = error.__traceback__
    while trace is not None:
        own: Any = trace.tb_frame.f_locals.get("self")
        if hasattr(own, "_typehint") and str(error).partition(":")[0].isidentifier():
            return UserError(f"{own.dest}.{error}")
        trace = trace.tb_next
    return error


def _allowed(expected: str, value: str) -> str:
    """What jsonargparse expected, in words."""
    if found := re.match(r"(?:typing\.)?Literal\[(.*)\]$", expected):
        choices = [each.strip().strip("'\"") for each in found[1].split(",")]
        near = difflib.get_close_matches(value, choices, n=1)
        return _either(choices) + (f"; did you mean {near[0]}?" if near else "")
    name = expected.removeprefix("<class '").removesuffix("'>")
    return _TYPES.get(name, name)


def _either(choices: Iterable[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last
