"""Build module and data module from a config's sections as `fit` does, and train them in this process without loggers, checkpoints
or progress bar, so that the scripts can measure it."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import Callback, Trainer

from rl_lightning.data import PromptDataModule
from rl_lightning.module import GRPOModule
from rl_lightning.types import PromptBatch, Score, UserError

Settings = dict[str, Any]
"""The sections `model` and `data`, plain JSON values."""


def resolve_settings(config: Mapping[str, Any], seed: int) -> Settings:
    """All settings of module and data module, defaults included.

    Args:
        config: with sections `model` and `data`, as in a file of configs/; others are ignored.
        seed: the seed for both.

    Raises:
        UserError: a name or type that they do not have.
    """
    parser = _parser()
    seeded = {name: {**config[name], "seed": seed} for name in ("model", "data")}
    settings: Settings = json.loads(parser.dump(_parse(parser, seeded), format="json", skip_unset=False))
    return settings


def build(settings: Settings) -> tuple[GRPOModule, PromptDataModule]:
    """Module and data module with these settings.

    Args:
        settings: as `resolve_settings` gives them, or a part of that.

    Raises:
        UserError: settings that are out of range, or are incompatible.
    """
    parser = _parser()
    sections = parser.instantiate_classes(_parse(parser, settings))
    return sections.model, sections.data


def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(GRPOModule, "model")
    parser.add_class_arguments(PromptDataModule, "data")
    return parser


def _parse(parser: ArgumentParser, settings: Settings) -> Any:
    sections = {name: copy.deepcopy(settings[name]) for name in ("model", "data")}  # parsing changes them in place
    try:
        return parser.parse_object(sections)
    except ArgumentError as error:
        raise UserError(" ".join(str(error).split()).partition(" Given value type:")[0]) from error


def train(module: GRPOModule, data: PromptDataModule, evaluator: Callback, max_steps: int = -1) -> None:
    """Train on the CPU until `max_steps`, or until the evaluator sets `trainer.should_stop`; -1 means no limit."""
    with tempfile.TemporaryDirectory() as directory:
        Trainer(
            default_root_dir=directory,
            accelerator="cpu",
            max_steps=max_steps,
            max_epochs=-1,
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[evaluator],
        ).fit(module, data)


def greedy_scores(module: GRPOModule, batches: Iterable[PromptBatch]) -> list[Score]:
    """Scores of one greedy completion of each problem, in the problems' order; RNG states stay as they are."""
    return [score for i, batch in enumerate(batches) for score in module.validation_step(batch, i).scores]
