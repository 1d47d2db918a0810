"""The trainer as scripts measure it: module and data made from a config's sections as `fit` makes them, and trained in this
process without loggers, checkpoints or progress bar."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import Callback, Trainer

from rl_lightning.data import ReasoningGymDataModule
from rl_lightning.module import GRPOModule
from rl_lightning.types import PromptBatch, Score, UserError

Settings = dict[str, Any]
"""The sections `model` and `data`, plain JSON values."""


def resolved(config: Mapping[str, Any], seed: int) -> Settings:
    """All settings of module and data, defaults included.

    Args:
        config: with sections `model` and `data`, as in a file of configs/; others are not looked at.
        seed: of both.

    Raises:
        UserError: a name or type that they do not have.
    """
    parser = _parser(GRPOModule)
    seeded = {name: {**config[name], "seed": seed} for name in ("model", "data")}
    settings: Settings = json.loads(parser.dump(_parsed(parser, seeded), format="json", skip_unset=False))
    return settings


def made(settings: Settings, module: type[GRPOModule] = GRPOModule) -> tuple[Any, ReasoningGymDataModule]:
    """Module and data by these settings.

    Args:
        settings: as `resolved` gives them, or parts of that.
        module: the class, or one of yours that takes the same settings.

    Raises:
        UserError: settings that are out of range, or do not go together.
    """
    parser = _parser(module)
    parts = parser.instantiate_classes(_parsed(parser, settings))
    return parts.model, parts.data


def _parser(module: type[GRPOModule]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(module, "model")
    parser.add_class_arguments(ReasoningGymDataModule, "data")
    return parser


def _parsed(parser: ArgumentParser, settings: Settings) -> Any:
    sections = {name: copy.deepcopy(settings[name]) for name in ("model", "data")}  # they are changed in place
    try:
        return parser.parse_object(sections)
    except ArgumentError as error:
        raise UserError(" ".join(str(error).split()).partition(" Given value type:")[0]) from error


def train(module: GRPOModule, data: ReasoningGymDataModule, referee: Callback, max_steps: int = -1) -> None:
    """Train on the CPU until `max_steps` or until the referee sets `trainer.should_stop`; -1 is without end."""
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
            callbacks=[referee],
        ).fit(module, data)


def greedy_scores(module: Any, batches: Iterable[PromptBatch]) -> list[Score]:
    """Of one greedy answer to each problem, in their order; random states stay as they are."""
    return [score for i, batch in enumerate(batches) for score in module.validation_step(batch, i)["scores"]]
