"""Let `class_path` and `init_args` of one's own environment stand in `data.datasets` beside `weight` and `levels`.

There jsonargparse takes them for a class in place of TaskSpec, so they are moved under `environment` before it reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_OPTION = "--data.datasets"


def in_words(words: Sequence[str]) -> list[str]:
    """The words of a command line, with the tasks of --data.datasets so rewritten."""
    changed, is_value = [], False
    for word in words:
        option, equals, value = word.partition("=")
        if is_value:
            word = _rewritten(word)
        elif option == _OPTION and equals:
            word = f"{option}={_rewritten(value)}"
        is_value = word == _OPTION
        changed.append(word)
    return changed


def in_config(config: Any) -> Any:
    """A config, with the tasks of data.datasets so rewritten."""
    if (
        isinstance(config, Mapping)
        and isinstance(data := config.get("data"), dict)
        and isinstance(data.get("datasets"), dict)
    ):
        return {**config, "data": {**data, "datasets": _tasks(data["datasets"])}}
    return config


def _rewritten(value: str) -> str:
    try:
        tasks = yaml.safe_load(value)
    except yaml.YAMLError:  # it is refused where it is read
        return value
    return json.dumps(_tasks(tasks)) if isinstance(tasks, dict) and tasks != _tasks(tasks) else value


def _tasks(tasks: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _task(spec) if isinstance(spec, dict) and "class_path" in spec else spec for name, spec in tasks.items()
    }


def _task(spec: dict[str, Any]) -> dict[str, Any]:
    environment = {key: spec[key] for key in ("class_path", "init_args") if key in spec}
    return {"environment": environment, **{key: value for key, value in spec.items() if key not in environment}}
