"""Sections of a model card as markdown: results, the prompt, the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import yaml

from rl_lightning.report.run_files import Run

if TYPE_CHECKING:
    from rl_lightning.report.model_card import PromptNote

_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "reasoning-gym")
"""Whose versions a card names."""

_SHOWN = (
    ("optimizer steps", ("trainer", "max_steps")),
    ("prompts per step", ("data", "prompts_per_step")),
    ("completions per prompt", ("model", "sampling", "num_generations")),
    ("tokens of a completion, at most", ("model", "sampling", "max_new_tokens")),
    ("sampling temperature", ("model", "sampling", "temperature")),
    ("loss", ("model", "objective", "loss_type")),
    ("KL coefficient", ("model", "objective", "beta")),
    ("learning rate", ("model", "learning_rate")),
    ("learning-rate schedule", ("model", "lr_schedule")),
    ("supervised first steps", ("model", "sft_steps")),
    ("LoRA rank (0: all weights)", ("model", "policy", "lora_r")),
    ("LoRA alpha", ("model", "policy", "lora_alpha")),
    ("base held in", ("model", "policy", "quantization")),
    ("seed", ("seed_everything",)),
)
"""Rows of the table of settings: label, and place in config.yaml."""


def evaluation_at(run: Run, step: int) -> dict[str, Any] | None:
    """The run's newest evaluation up to a step; None without one."""
    return next((each for each in reversed(run.evaluations) if each["step"] <= step), None)


def tasks_sentence(evaluation: Mapping[str, Any]) -> str:
    """What it was trained on."""
    tasks = ", ".join(evaluation["tasks"])
    return f"It was trained on {'the task' if len(evaluation['tasks']) == 1 else 'the tasks'} {tasks}."


def results_section(run: Run, step: int, picture: str) -> str:
    """Held-out accuracy at the start and now, with the paired gain and its 95% interval, by task."""
    now = evaluation_at(run, step)
    if now is None:
        return "## Results\n\nNot evaluated: the run has no evaluation up to this step."
    first = run.evaluations[0]
    same = first["step"] == 0 and first["suite"] == now["suite"] and first is not now
    head = "| held-out problems | n | step 0 | step {} | paired gain, 95% interval |\n|---|---|---|---|---|"
    lines = [head.format(now["step"])]
    for name, found in {"all": now["overall"], **now["tasks"]}.items():
        before = first["overall"] if name == "all" else first["tasks"].get(name, {})
        then = f"{before['accuracy']:.3f}" if same and before else ""
        accuracy = f"{found['accuracy']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
        lines.append(f"| {name} | {found['n']} | {then} | {accuracy} | {_gain(found.get('gain'))} |")
    samples = now.get("samples") or {}
    how = f"{samples['samples']} samples of each at temperature {samples['temperature']:g}" if samples else "greedy"
    notes = ["", f"Share of problems that the policy as trained answers exactly, {how}; none of them was trained on."]
    if now["step"] != step:
        notes.append(f"The evaluation nearest before step {step}; this checkpoint itself was not evaluated.")
    if "began_from" in first:
        notes.append("Step 0 is the adapter that the run began from, not the base.")
    text = "## Results\n\n" + "\n".join(lines) + "\n" + "\n".join(notes)
    return f"{text}\n\n![learning curve]({picture})" if picture else text


def prompt_section(note: PromptNote) -> str:
    """How the policy was asked: it answers otherwise without."""
    settings = dict(note.settings)
    system = settings.pop("system_prompt", "")
    parts = ["## Prompt", "The policy was trained with the prompts below, and answers otherwise without them."]
    if note.bare:
        parts.append(
            "The chat template writes them by itself: a chat of the question alone, as the user's message, gives exactly the "
            "training's prompt."
        )
    elif note.bare is False:
        parts.append("**The chat template does not write them by itself.** Give it everything that is listed here.")
    parts.append(f"System message:\n\n{_fenced(system)}" if system else "No system message.")
    for name, value in settings.items():
        if name not in ("examples", "own_examples"):
            parts.append(f"`data.{name}`:\n\n{_fenced(value if isinstance(value, str) else _yaml(value))}")
    for task, turns in note.examples.items():
        shown = "\n\n".join(f"user: {question}\n\nassistant: {answer}" for question, answer in turns)
        parts.append(f"Worked examples before every question of {task}, as earlier turns:\n\n{_fenced(shown)}")
    parts.append(f"A whole prompt, as the model reads it:\n\n{_fenced(note.rendered)}")
    return "\n\n".join(parts)


def training_section(run: Run, settings: Mapping[str, Any]) -> str:
    """The settings that matter most, all those of model and data, and the versions."""
    config = yaml.safe_load(run.config) if run.config else {}
    rows = [(label, _at(config or {}, place)) for label, place in _SHOWN]
    lines = [f"| {label} | {value} |" for label, value in rows if value is not None]
    table = "\n".join(["| setting | value |", "|---|---|", *lines]) if lines else "The run has no config.yaml."
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    text = f"## Training\n\n{table}\n\nVersions when this was written: {versions}."
    if not settings:
        return text
    return f"{text}\n\n<details><summary>All settings of model and data</summary>\n\n{_fenced(_yaml(settings))}\n\n</details>"


def _gain(gain: Mapping[str, float] | None) -> str:
    return "" if gain is None else f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def _at(config: Any, place: Sequence[str]) -> Any:
    for name in place:
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).strip()


def _fenced(text: str) -> str:
    """As code, with a fence that is longer than any in the text."""
    longest = max((len(run) for run in text.replace("\n", " ").split(" ") if run and set(run) == {"`"}), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
