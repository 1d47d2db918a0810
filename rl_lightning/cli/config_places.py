"""Where in which config a setting stands, for messages; and configs that are no YAML, before jsonargparse reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from rl_lightning.types import UserError


def config_values(words: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The values of `--config` on a command line, each with the number of its word."""
    for number, word in enumerate(words):
        if word.startswith("--config="):
            yield number, word.removeprefix("--config=")
        elif number > 0 and words[number - 1] in ("-c", "--config"):
            yield number, word


def refuse_broken_configs(words: Sequence[str]) -> None:
    """Refuse a config that is no YAML with settings by name.

    Args:
        words: the command line, with the paths of configs.

    Raises:
        UserError: names the file and, where there is one, the line.
    """
    for _, value in config_values(words):
        path = Path(value)
        if not path.is_file():
            continue
        try:
            node = _composed(path)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{path}, line {mark.line + 1}" if mark else str(path)
            tab = "; indent with spaces, not tabs" if "'\\t'" in str(error) else ""
            raise UserError(f"{where}: not YAML: {error.problem or error.context}{tab}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise UserError(
                f"{path}: not a config: it must have settings by name, such as `trainer: {{max_steps: 100}}`"
            )


def place_of_setting(name: str, words: Sequence[str]) -> str | None:
    """The file and line that give a setting its value.

    Args:
        name: its dotted name.
        words: the command line, with the paths of configs.

    Returns:
        such as "own.yaml, line 3"; None where no config gives it, or a word after that does.
    """
    configs = dict(config_values(words))
    for number in reversed(range(len(words))):
        given = words[number].removeprefix("--").partition("=")[0].rstrip("+-").replace(".init_args", "")
        if words[number].startswith("--") and (name == given or name.startswith(f"{given}.")):
            return None
        if number in configs and (path := Path(configs[number])).is_file():
            line = _line(_composed(path), name, 0)
            if line is not None:
                return f"{path}, line {line + 1}"
    return None


def _composed(path: Path) -> yaml.Node | None:
    with open(path, encoding="utf-8") as file:
        return yaml.compose(file, yaml.SafeLoader)


def _line(node: yaml.Node | None, name: str, depth: int) -> int | None:
    """The line of the key, from 0; or of the deepest that there is above it, if that is below a section's name."""
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if name == key.value:
            return int(key.start_mark.line)
        if name.startswith(f"{key.value}."):
            found = _line(value, name[len(key.value) + 1 :], depth + 1)
            return found if found is not None else int(key.start_mark.line) if depth > 0 else None
    return _below_init_args(node, name, depth)


def _below_init_args(node: yaml.MappingNode, name: str, depth: int) -> int | None:
    """The line of a class's setting, which a config has below init_args."""
    below = next((value for key, value in node.value if key.value == "init_args"), None)
    return None if below is None else _line(below, name, depth + 1)
