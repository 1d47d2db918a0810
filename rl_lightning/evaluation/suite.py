"""The suite of a fixed evaluation: its problems, their expected answers, and how completions are decoded.

It is written once, to `eval_results/suite.json`. Two evaluations may be compared if their suites have the same hash; if not,
`differences` says in words what changed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rl_lightning.checkpointing.atomic_files import unused_path, write_json
from rl_lightning.evaluation.difficulty import LEVEL, levels
from rl_lightning.evaluation.eval_sampling import EvalSampling
from rl_lightning.types import Problem, UserError


@dataclass(frozen=True)
class Suite:
    """What evaluations must have in common to be comparable, and the settings it was made from.

    Attributes:
        max_new_tokens: length limit of a completion.
        system_prompt: the system message before each question.
        decoding: {} for greedy; else `samples` and `temperature`.
        eval_seed: selects the problems of the tasks.
        datasets: task to its environment's configuration.
        problems: dicts of task, index, question, expected (the answer as text, or None) and level (difficulty parameter to value;
            with a curriculum the problem's level is one of them).
        prompt: the other settings of the prompts that are not their defaults, and the worked examples by task.
    """

    max_new_tokens: int
    system_prompt: str
    decoding: dict[str, Any]
    eval_seed: int
    datasets: dict[str, dict[str, Any]]
    problems: tuple[dict[str, Any], ...]
    prompt: dict[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """16 hex digits that identify everything an evaluation's result depends on besides the model."""
        parts = [self.max_new_tokens, self.system_prompt, self.decoding]
        parts += [[p["task"], p["question"], p["expected"]] for p in self.problems]
        if self.prompt:
            parts.append(self.prompt)
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def make_suite(
    problems: tuple[Problem, ...],
    max_new_tokens: int,
    system_prompt: str,
    draws: EvalSampling | None,
    eval_seed: int,
    datasets: Mapping[str, Mapping[str, Any]],
    prompt: Mapping[str, Any] | None = None,
) -> Suite:
    """Make the suite of a data module's evaluation problems.

    Args:
        problems: the problems, in any order.
        max_new_tokens: length limit of a completion.
        system_prompt: the system message before each question.
        draws: how completions are sampled; None for greedy decoding.
        eval_seed: selects the problems of the tasks.
        datasets: task to its environment's configuration.
        prompt: the other settings of the prompts that are not their defaults; None for none.
    """
    items = tuple(
        {
            "task": problem.task,
            "index": problem.index,
            "question": problem.question,
            "expected": problem.expected,
            "level": {**problem.difficulty, **({} if problem.level is None else {LEVEL: problem.level})},
        }
        for problem in sorted(problems, key=lambda p: (p.task, p.index))
    )
    plain, plain_prompt = (
        json.loads(json.dumps(each, default=str))
        for each in ({task: dict(config) for task, config in datasets.items()}, dict(prompt or {}))
    )
    decoding = asdict(draws) if draws else {}
    return Suite(max_new_tokens, system_prompt, decoding, eval_seed, plain, items, plain_prompt)


def curriculum_levels(suite: Suite) -> dict[str, dict[str, list[int]]]:
    """Group the problems by the levels of a curriculum: task to a level's name, such as "level 0", to the positions of its problems
    among the task's; a task without levels is left out."""
    found = {}
    for task in sorted(suite.datasets):
        of_task = [p["level"] for p in suite.problems if p["task"] == task]
        named = levels([{LEVEL: each[LEVEL]} if LEVEL in each else {} for each in of_task])
        if named:
            found[task] = named
    return found


def store_suite(suite: Suite, directory: Path) -> None:
    """Write `suite.json`, unless the directory has this suite already. If it has another, that stays and this is `suite_2.json`."""
    if stored_suite(directory, suite.hash) is None:
        write_json(unused_path(directory / "suite.json"), {"hash": suite.hash, **asdict(suite)})


def stored_suite(directory: Path, hash: str) -> Suite | None:
    """Return the suite with that hash, or None.

    Raises:
        UserError: one of the files is not a suite.
    """
    for path in sorted(directory.glob("suite*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.pop("hash") == hash:
                return Suite(**{**found, "problems": tuple(found["problems"])})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a suite of rl_lightning ({error}); move it away") from error
    return None


def differences(before: Suite, now: Suite) -> list[str]:
    """Say what changed, a few words for each difference; empty if the hashes are equal."""
    if before.hash == now.hash:
        return []
    found = [
        f"{name} was {_said(old)} and is {_said(new)}"
        for name in ("max_new_tokens", "decoding", "eval_seed")
        if (old := getattr(before, name)) != (new := getattr(now, name))
    ]
    for name in sorted(before.prompt.keys() | now.prompt.keys()):
        if before.prompt.get(name) != now.prompt.get(name):
            old, new = (str(suite.prompt.get(name, "not set")) for suite in (before, now))
            found.append(f"data.{name} {f'was {old} and is {new}' if len(old + new) < 60 else 'differs'}")
    if before.system_prompt != now.system_prompt:
        found.append("the system prompt differs")
    numbers = [Counter(p["task"] for p in suite.problems) for suite in (before, now)]
    for task in sorted(before.datasets.keys() | now.datasets.keys()):
        if task not in now.datasets or task not in before.datasets:
            found.append(f"{task} was {'left out' if task not in now.datasets else 'added'}")
            continue
        found += _task_differences(task, before.datasets[task], now.datasets[task])
        if numbers[0][task] != numbers[1][task]:
            found.append(f"{task} had {numbers[0][task]} problems and has {numbers[1][task]}")
    return found or [
        "the tasks' problems or expected answers differ, for instance because of another version of reasoning-gym"
    ]


def _task_differences(task: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences of a task's config, and of its levels, which are configs too."""
    of_each = [config.get("levels", []) for config in (before, now)]
    said = [f"at {len(each)} levels of a curriculum" if each else "at its config alone" for each in of_each]
    found = [f"{task} was {said[0]} and is {said[1]}"] if said[0] != said[1] else []
    if not found:
        for number, (old, new) in enumerate(zip(*of_each, strict=True)):
            found += _config_differences(f"{task}.levels[{number}]", old, new)
    plain = [{key: value for key, value in config.items() if key != "levels"} for config in (before, now)]
    return _config_differences(f"{task}.config", *plain) + found


def _config_differences(where: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{where}.{key} was {_said(before.get(key, 'not set'))} and is {_said(now.get(key, 'not set'))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _said(value: Any) -> str:
    if value == {}:
        return "greedy"
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
