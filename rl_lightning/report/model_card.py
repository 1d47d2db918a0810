"""The model card of a checkpoint or an export: README.md in the hub's form, with metadata, from the run's files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData, RepoCard, try_to_load_from_cache

from rl_lightning import __version__
from rl_lightning.report.card_sections import (
    evaluation_at,
    prompt_section,
    results_section,
    tasks_sentence,
    training_section,
)
from rl_lightning.report.run_files import Run

CARD = "README.md"

UNKNOWN = "unknown"
"""The license of a base that does not say; a word that the hub knows."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LICENSES = {"Apache License": "apache-2.0", "MIT License": "mit"}
"""How the text of a license begins, and its name on the hub."""


@dataclass(frozen=True)
class PromptNote:
    """How the policy was asked.

    Attributes:
        settings: those of the prompt that are not the defaults, by name; `system_prompt` always.
        examples: by task, solved questions before every question.
        rendered: a whole prompt as the model reads it.
        bare: whether a chat of the question alone is this prompt; None where that was not tried.
    """

    settings: Mapping[str, Any]
    examples: Mapping[str, Sequence[tuple[str, str]]]
    rendered: str
    bare: bool | None = None


@dataclass(frozen=True)
class CardOf:
    """What a card is written for.

    Attributes:
        run: the run.
        step: the checkpoint's optimizer step.
        base: name or directory of the base.
        base_directory: its files, where they are on this machine.
        what: what is in the directory, such as "a LoRA adapter".
        library: what loads it.
        tags: more tags.
        prompt: how the policy was asked; None where nobody knows.
        usage: how it is loaded, as markdown.
        picture: the learning curve's file beside the card; empty: none.
        sections: more sections, as markdown.
        measured: n and accuracy by group of problems, of what is in the directory; None: the policy's in the run's evaluation.
    """

    run: Run
    step: int
    base: str
    what: str
    library: str
    base_directory: Path | None = None
    tags: Sequence[str] = ()
    prompt: PromptNote | None = None
    usage: str = ""
    picture: str = ""
    sections: Sequence[str] = ()
    measured: Mapping[str, Mapping[str, float]] | None = None


def model_card(of: CardOf) -> str:
    """The text of README.md, metadata included.

    Raises:
        UserError: a file of the run cannot be read.
    """
    name, license_ = of.run.path.resolve().name, license_of(of.base, of.base_directory)
    evaluation = evaluation_at(of.run, of.step)
    data = ModelCardData(
        base_model=of.base if is_hub_name(of.base) else None,
        eval_results=_eval_results(evaluation, of) or None,
        library_name=of.library,
        license=license_,
        model_name=f"{name}-step-{of.step}",
        pipeline_tag="text-generation",
        tags=["rl_lightning", "grpo", "reinforcement-learning", "rlvr", *of.tags],
    )
    training = "This is" if evaluation is None else f"{tasks_sentence(evaluation)} This is"
    parts = [
        f"# {name}, step {of.step}",
        f"{_named(of.base)} trained by GRPO, reinforcement learning with verifiable rewards, with rl_lightning {__version__}. "
        f"{training} {of.what}, after {of.step:,} optimizer steps.",
        results_section(of.run, of.step, of.picture),
        f"## Use\n\n{of.usage}" if of.usage else "",
        prompt_section(of.prompt) if of.prompt else "",
        *of.sections,
        training_section(of.run, _settings(of.run)),
        f"## License\n\n{_license_sentence(license_, of.base)}",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def is_hub_name(name: str) -> bool:
    """Whether a base is named as on the hub, and is no directory."""
    return bool(_HUB_NAME.fullmatch(name)) and not Path(name).exists()


def license_of(base: str, directory: Path | None) -> str:
    """The base's license as the hub names it, from the card or the license's text among its files; `unknown` where neither says.
    Nothing is downloaded.

    Args:
        base: its name, for the hub's cache.
        directory: its files; None where only the cache may have them.
    """
    cached = try_to_load_from_cache(base, CARD) if is_hub_name(base) else None
    for card in ([directory / CARD] if directory else []) + ([Path(cached)] if isinstance(cached, str) else []):
        if card.is_file() and (said := _license_in_card(card)):
            return said
    for text in sorted(directory.glob("LICENSE*")) if directory else []:
        beginning = " ".join(text.read_text(encoding="utf-8", errors="replace")[:300].split())
        if found := next((name for start, name in _LICENSES.items() if beginning.startswith(start)), None):
            return found
    return UNKNOWN


def _license_in_card(card: Path) -> str | None:
    try:
        said = RepoCard.load(card, ignore_metadata_errors=True).data.to_dict().get("license")
    except (ValueError, OSError, yaml.YAMLError):  # somebody else's file: what cannot be read says nothing
        return None
    return said if isinstance(said, str) else None


def _license_sentence(name: str, base: str) -> str:
    if name == UNKNOWN:
        return f"Unknown: no license was found among the files of {_named(base)}. Find it out before you use or share this."
    return f"{name}, the license of {_named(base)}, on which this is based."


def _named(base: str) -> str:
    """The base for a reader on another machine: of a directory its name alone."""
    return f"[{base}](https://huggingface.co/{base})" if is_hub_name(base) else Path(base).name


def _eval_results(evaluation: Mapping[str, Any] | None, of: CardOf) -> list[EvalResult]:
    """Accuracy of all problems and of each task, for `model-index`."""
    samples = None
    if (groups := of.measured) is None:
        if evaluation is None:
            return []
        groups = {"all problems": evaluation["overall"], **evaluation["tasks"]}
        samples = (evaluation.get("samples") or {}).get("samples")
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=name.replace(" ", "-"),
            dataset_name=f"{name} ({found['n']} held-out problems)",
            dataset_split="held out",
            metric_type="accuracy",
            metric_name=f"accuracy, {f'mean of {samples} samples' if samples else 'greedy'}",
            metric_value=round(float(found["accuracy"]), 4),
        )
        for name, found in groups.items()
    ]


def _settings(run: Run) -> dict[str, Any]:
    """The sections model and data of config.yaml, without what looks like a secret, and with directories of this machine cut to
    their last part."""
    config = yaml.safe_load(run.config) if run.config else {}
    sections = {name: config[name] for name in ("model", "data") if name in (config or {})}
    return _without_places(sections)


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_places(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    is_place = isinstance(value, str) and "\n" not in value and re.match(r"(/|~|\.\.?/|[A-Za-z]:\\)", value)
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if is_place else value
