"""The settings of a config that decide how one question is asked, for `chat` and `tasks NAME --prompt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import jsonargparse
import yaml

from rl_lightning.checkpointing.model_files import is_adapter
from rl_lightning.cli import own_tasks
from rl_lightning.cli.users_mistakes import users_mistakes
from rl_lightning.environments.examples import worked_examples
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptSettings, PromptTemplate
from rl_lightning.environments.stream import eval_problems, held_out_hashes
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.rollout import Sampling
from rl_lightning.types import Problem, UserError


@dataclass
class Settings:
    """The settings of a config that matter to a single answer."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    sampling: Sampling = field(default_factory=Sampling)
    datasets: dict[str, TaskSpec] = field(default_factory=dict)
    prompt: PromptSettings = field(default_factory=PromptSettings)
    eval_seed: int = 0
    eval_num_samples: int = 50

    def __post_init__(self) -> None:
        self._mixtures: dict[str, EnvironmentMixture] = {}

    def mixture(self, task: str) -> EnvironmentMixture:
        """The task alone, by the config's settings for it or else the task's defaults.

        Raises:
            UserError: there is no such task.
        """
        if task not in self._mixtures:
            self._mixtures[task] = EnvironmentMixture({task: self.datasets.get(task, TaskSpec())})
        return self._mixtures[task]

    def problem(self, task: str, index: int) -> Problem:
        """The task's evaluation problem with that number.

        Raises:
            UserError: there is no such task, or it has fewer different problems.
        """
        problems = self.problems(task, index + 1)
        if len(problems) <= index:
            raise UserError(f"{task} has only {len(problems)} different problems; the first is 0, not {index}")
        return problems[index]

    def problems(self, task: str, number: int) -> tuple[Problem, ...]:
        """The task's first evaluation problems; fewer if it has no more.

        Raises:
            UserError: there is no such task.
        """
        return eval_problems(self.mixture(task), self.eval_seed, number)

    def template(self, tokenizer: Any, task: str | None, supervised: bool = False) -> PromptTemplate:
        """The prompt template, with the worked examples of a task as a run without a curriculum has them.

        Args:
            tokenizer: the model's.
            task: None for no examples.
            supervised: whether it is for sampling a step of model.sft_steps.

        Raises:
            UserError: the settings do not fit the model's chat template, or there are no such examples.
        """
        template = self.prompt.template(tokenizer)
        shows = (self.prompt.always_shows_examples or supervised) and (self.prompt.examples or self.prompt.own_examples)
        if task is not None and shows:
            mixture, own = self.mixture(task), self.prompt.own_examples
            of_task = replace(self.prompt, own_examples={task: own.get(task, [])})
            held_out = held_out_hashes(eval_problems(mixture, self.eval_seed, self.eval_num_samples))
            template.show(worked_examples(mixture, of_task, self.eval_seed, held_out))
        return template


def read_settings(path: Path, command: str, checkpoint: Path | None = None, base: str | None = None) -> Settings:
    """Read the settings of a config file that decide how a question is asked; those of the trainer and of callbacks are ignored.

    Args:
        path: the config.
        command: for the message.
        checkpoint: its adapter, or its model where all weights were trained, is the policy's, whatever the config says; None for
            that of the config.
        base: the model below the checkpoint's adapter; None for that of the config.

    Raises:
        UserError: the file cannot be read, or a value is not allowed.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        data, model = config.get("data") or {}, config.get("model") or {}
    except OSError as error:
        raise UserError(f"{command}: {path}: {error.strerror}; name the settings by --config") from error
    except (yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
        raise UserError(f"{command}: {path}: not a config of rl_lightning ({' '.join(str(error).split())})") from error
    if base is not None:
        model = {**model, "policy": {**(model.get("policy") or {}), "model_name_or_path": base}}
    if checkpoint is not None:
        setting = "adapter" if is_adapter(checkpoint) else "model_name_or_path"
        model = {**model, "policy": {**(model.get("policy") or {}), setting: str(checkpoint)}}
    try:
        return settings_of(model, data)
    except jsonargparse.ArgumentError as error:
        reason = " ".join(str(error).split()).partition(" Given value type:")[0]
        raise UserError(f"{command}: {path}: {reason}") from error


def settings_of(model: Mapping[str, Any], data: Mapping[str, Any]) -> Settings:
    """The settings that decide how a question is asked, of a config's sections.

    Args:
        model: the section model, plain values.
        data: the section data.

    Raises:
        ArgumentError: of jsonargparse: a value that is not allowed.
        UserError: the same, found by a class that the config names.
    """
    wanted: dict[str, Any] = {name: model[name] for name in ("policy", "sampling") if name in model}
    wanted["policy"] = {**(wanted.get("policy") or {}), "reference": "base"}  # no answer depends on it
    wanted |= {name: data[name] for name in ("datasets", "eval_seed", "eval_num_samples") if name in data}
    if isinstance(wanted.get("datasets"), dict):
        wanted["datasets"] = own_tasks.read(wanted["datasets"])
    wanted["prompt"] = {each.name: data[each.name] for each in fields(PromptSettings) if each.name in data}
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--settings", type=Settings)
    parsed = parser.parse_object({"settings": wanted})
    with users_mistakes():
        return cast(Settings, parser.instantiate_classes(parsed).settings)


def prompt_of(task: str, settings: Settings) -> str:
    """The prompt of a task's first evaluation problem, as the model reads it, and its length; for `tasks NAME --prompt`. With
    `data.examples_for: sft_steps` also that by which those steps are sampled.

    Raises:
        UserError: the settings do not fit the model's chat template, or there is no such task.
    """
    problem, tokenizer = settings.problem(task, 0), load_tokenizer(settings.policy.model_name_or_path)
    said = []
    for supervised in (False,) if settings.prompt.always_shows_examples else (False, True):
        ids = settings.template(tokenizer, task, supervised).token_ids(problem.question, task)
        which = " in the samples of model.sft_steps" if supervised else ""
        text = tokenizer.decode(ids, skip_special_tokens=False)
        said.append(f"{text}\n\n{len(ids)} tokens{which}; the model continues after the last character above")
    return "\n\n".join(said)
