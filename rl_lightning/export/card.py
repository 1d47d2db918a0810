"""The model card of an export, the learning curve beside it, and what programs read of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from rl_lightning import __version__
from rl_lightning.checkpointing.atomic_files import write_atomically, write_json
from rl_lightning.checkpointing.model_files import GENERATION, read_json
from rl_lightning.export.default_prompt import is_the_trained_prompt
from rl_lightning.export.formats import Format
from rl_lightning.export.run_prompts import RunPrompts
from rl_lightning.export.sharing import ABOUT
from rl_lightning.export.source import Source
from rl_lightning.export.verification import Verification
from rl_lightning.policy.end_tokens import listed
from rl_lightning.report.learning_curve import draw
from rl_lightning.report.model_card import CARD, CardOf, PromptNote, model_card
from rl_lightning.report.run_files import Run

PICTURE = "learning_curve.png"

_PENALTIES = ("repetition_penalty", "no_repeat_ngram_size", "encoder_repetition_penalty", "suppress_tokens")
"""Settings of a generation config that change greedy completions too."""


def write_card(
    source: Source,
    form: Format,
    prompts: RunPrompts,
    directory: Path,
    found: Mapping[str, Verification] | None,
    name: str,
) -> None:
    """Write README.md, learning_curve.png and rl_lightning_export.json.

    Args:
        source: the checkpoint and its run.
        form: the export's form.
        prompts: how the run asked.
        directory: the export, with tokenizer and template.
        found: what the verification found of each part; None where there was none.
        name: the directory's name when it is finished.
    """
    run = Run(source.run, source.run.name)
    note = prompt_note(source, prompts, directory)
    draw(source.run, directory / PICTURE)
    card = CardOf(
        run=run,
        step=source.step,
        base=source.base_name,
        base_directory=source.model_directory if source.has_adapter else None,
        what=form.what(),
        library=form.library,
        tags=form.tags,
        prompt=note,
        usage=form.usage().replace("DIRECTORY", name),
        picture=PICTURE,
        measured=None if found is None else _measured(next(iter(found.values()))),
        sections=[generation_section(source, directory), verification_section(found)],
    )
    write_atomically(directory / CARD, model_card(card))
    about: dict[str, Any] = {
        "rl_lightning": __version__,
        "format": form.name,
        "dtype": None if form.dtype is None else str(form.dtype).removeprefix("torch."),
        "base": source.base_name,
        "step": source.step,
        "max_new_tokens": source.sampling.max_new_tokens,
        "prompt": asdict(note),
        "verification": None if found is None else _for_programs(found),
        "faults": [] if found is None else faults_of(found),
    }
    write_json(directory / ABOUT, about)


def prompt_note(source: Source, prompts: RunPrompts, directory: Path) -> PromptNote:
    """How the policy was asked, and whether the export's chat template asks so by itself."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    settings = {"system_prompt": source.prompt.system_prompt, **source.prompt.changed()}
    first = prompts.problems[0]
    rendered = prompts.template(tokenizer).text(first.question, first.task)
    bare = is_the_trained_prompt(tokenizer, source.prompt, bool(prompts.examples))
    return PromptNote(settings, prompts.examples, rendered, bare)


def generation_section(source: Source, directory: Path) -> str:
    """Where a completion ends, and what the training had otherwise than the base's generation config."""
    generation = read_json(directory / GENERATION)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = listed(generation.get("eos_token_id"))
    names = ", ".join(f"`{tokenizer.convert_ids_to_tokens(each)}` ({each})" for each in ids) or "no token"
    lines = [
        f"A completion ends at {names}, as in training; generation_config.json has this. Training sampled at temperature "
        f"{source.sampling.temperature:g}, up to {source.sampling.max_new_tokens} tokens; evaluations are greedy unless they say "
        "otherwise."
    ]
    own = {name: generation[name] for name in _PENALTIES if generation.get(name) not in (None, 0, 1, 1.0)}
    if own:
        said = ", ".join(f"{name} {value}" for name, value in own.items())
        lines.append(f"The base's generation config sets {said}; training and evaluations had none of it.")
    return "## Generation\n\n" + " ".join(lines)


def _measured(found: Verification) -> dict[str, dict[str, float]]:
    return {name: {"n": each["n"], "accuracy": each["export"]} for name, each in found.accuracy.items()}


def _for_programs(found: Mapping[str, Verification]) -> dict[str, Any]:
    """Of a directory that is one model what was found of it; of several files what was found, by file."""
    by_part = {name: each.as_dict() for name, each in found.items()}
    return by_part.get("", by_part)


def verification_section(found: Mapping[str, Verification] | None) -> str:
    """What the verification found of each part, or that there was none."""
    if found is None:
        return "## Verification\n\n**Not verified**: it was exported with `--no-verify`."
    text = "## Verification\n\n" + "\n\n".join(
        (f"### {name}\n\n" if name else "") + verification_table(each) for name, each in found.items()
    )
    faults = "\n".join(f"- {fault}" for fault in faults_of(found))
    return f"{text}\n\n**This export FAILED its verification. Do not use it:**\n\n{faults}" if faults else text


def faults_of(found: Mapping[str, Verification]) -> list[str]:
    """What is wrong, with the file's name where there are several."""
    return [f"{name}: {fault}" if name else fault for name, each in found.items() for fault in each.faults]


def verification_table(found: Verification) -> str:
    """Log-probs and accuracies as markdown."""
    lines = [
        f"Log-probs of {found.completions} completions of the training ({found.tokens:,} tokens), nats per token, to those of the "
        "policy on the full-precision base:",
        "",
        "| | mean difference | largest |",
        "|---|---|---|",
        f"| this export | {found.distance.mean:.4f} | {found.distance.largest:.3f} |",
    ]
    if found.of_4_bits is not None:
        lines.append(
            f"| the policy as trained, on the base in 4 bits | {found.of_4_bits.mean:.4f} | {found.of_4_bits.largest:.3f} |"
        )
    lines += [
        "",
        "Accuracy on held-out problems, greedy, paired with the policy as trained:",
        "",
        "| problems | n | policy | this export | difference, 95% interval |",
        "|---|---|---|---|---|",
    ]
    for name, each in found.accuracy.items():
        interval = f"{each['mean']:+.3f} ({each['low']:+.3f} to {each['high']:+.3f})"
        lines.append(f"| {name} | {each['n']} | {each['policy']:.3f} | {each['export']:.3f} | {interval} |")
    return "\n".join(lines)
