"""A course: what several variants of the quickstart are compared on; one file each in configs/laboratory/."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from benchmark.learning import quickstart
from training import resolved

from rl_lightning.types import UserError, require

FOLDER = Path(__file__).parents[2] / "configs" / "laboratory"

Changes = dict[str, Any]
"""Dotted name of a setting of the quickstart, such as model.objective.surrogate, to its value here."""


@dataclass(frozen=True)
class Course:
    """One file of configs/laboratory/.

    Attributes:
        name: the file's.
        about: what is asked, in a sentence.
        seconds: of training that each run has.
        every: training steps between two evaluations; at least 1.
        base: what differs from the quickstart in all variants. The held-out problems are those of its tasks.
        variants: name to what differs from the base; the others are compared with the first.
    """

    name: str
    about: str
    seconds: float
    every: int
    base: Changes
    variants: dict[str, Changes]

    @classmethod
    def read(cls, word: str) -> Course:
        """The course of that name, or the one in that file.

        Raises:
            UserError: there is none, or it is none.
        """
        file = Path(word) if word.endswith(".yaml") else FOLDER / f"{word}.yaml"
        if not file.is_file():
            raise UserError(f"{word!r} is not a course; {nearest(word, names())}there are: {', '.join(names())}")
        try:
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
        wanted = [field.name for field in fields(cls) if field.name != "name"]
        if not isinstance(found, dict) or sorted(found) != sorted(wanted):
            raise UserError(f"{file}: a course has the keys {', '.join(wanted)}, and no others")
        for name in ("base", "variants"):
            found[name] = found[name] or {}
            require(f"{file}: {name}", found[name], isinstance(found[name], dict), "names and values")
        for name, changes in found["variants"].items():
            found["variants"][name] = changes or {}
            require(f"{file}: {name}", changes, isinstance(changes or {}, dict), "dotted names and values, or {}")
        for name in ("every", "seconds"):
            value = found[name]
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
            require(f"{file}: {name}", value, number, "a number above 0")
        require(f"{file}: every", found["every"], found["every"] == int(found["every"]), "a whole number")
        require(f"{file}: variants", found["variants"], bool(found["variants"]), "at least one")
        return cls(file.stem, **found | {"about": str(found["about"] or "")})

    def chosen(self, variants: Collection[str]) -> list[str]:
        """These variants, or all, in the course's order.

        Raises:
            UserError: one that is not there.
        """
        for name in variants:
            if name not in self.variants:
                hint = nearest(name, self.variants)
                raise UserError(f"{self.name} has no variant {name!r}; {hint}there are: {', '.join(self.variants)}")
        return [name for name in self.variants if name in variants or not variants]


@dataclass(frozen=True)
class Run:
    """A variant with a seed.

    Attributes:
        course: its name.
        variant: its name.
        seed: of adapters, sampling and the stream of problems.
        settings: all that its result depends on besides the machine: `model` and `data` in full; `suite`, what is asked in
            evaluations; `seconds`, `every`, `threads`.
    """

    course: str
    variant: str
    seed: int
    settings: dict[str, Any]

    @property
    def label(self) -> str:
        """In words."""
        return f"{self.variant}, seed {self.seed}"

    def file(self, folder: Path) -> Path:
        """Where its result is kept."""
        return folder / self.course / f"{self.variant}_seed_{self.seed}.json"


def names() -> list[str]:
    """The courses that are there."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def runs(course: Course, variants: Sequence[str], seeds: Sequence[int], seconds: float, threads: int) -> list[Run]:
    """Seed by seed all variants, so that what changes on the machine meanwhile hits them alike.

    Raises:
        UserError: a setting that there is not.
    """
    base = changed(quickstart(), course.base, f"{course.name}: base")
    target = _resolved(base, f"{course.name}: base")["data"]
    suite = {
        "datasets": {name: spec["config"] for name, spec in target["datasets"].items()},
        "problems": target["eval_num_samples"],
        "seed": target["eval_seed"],
    }
    limits = {"suite": suite, "seconds": seconds, "every": course.every, "threads": threads}
    settings = {}
    for name in variants:
        where = f"{course.name}: {name}"
        settings[name] = _resolved(changed(base, course.variants[name], where), where)
        data = settings[name]["data"]
        if lost := sorted(suite["datasets"].keys() - data["datasets"].keys()):
            raise UserError(f"{where}: data.datasets lacks {', '.join(lost)}, which all variants are asked")
        require(
            where, data["system_prompt"], data["system_prompt"] == target["system_prompt"], "the base's system prompt"
        )
    return [Run(course.name, name, seed, _seeded(settings[name], seed) | limits) for seed in seeds for name in variants]


def _resolved(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        return resolved(config, seed=0)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _seeded(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {section: {**values, "seed": seed} for section, values in settings.items()}


def changed(config: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A config with settings of other values.

    Args:
        config: nested.
        changes: by dotted names.
        where: for the message.

    Raises:
        UserError: a name that leads outside of `model` and `data`, or into a value.
    """
    found = copy.deepcopy(dict(config))
    for name, value in changes.items():
        *path, last = name.split(".")
        require(where, name, path[:1] in (["model"], ["data"]), "a setting that begins with model. or data.")
        at: Any = found
        for step in path:
            at = at.setdefault(step, {})
            require(where, name, isinstance(at, dict), f"a setting; {step} is a value and has none within")
        at[last] = copy.deepcopy(value)
    return found


def nearest(word: str, words: Collection[str]) -> str:
    """ "did you mean …? ", or nothing."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""
