"""Command lines that read the settings of `fit`, and neither load nor write anything: for `plan`, `tasks --config` and help."""

from __future__ import annotations

import sys
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, instantiate_class

from rl_lightning.cli.lightning_cli import RLCommandLine
from rl_lightning.cli.single_prompt import settings_of
from rl_lightning.memory import LossTerms, gpu_of_size, make_plan, memory_of_cards
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.placement import replica_devices
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.types import require


class _ReadOnlyCommandLine(RLCommandLine):
    """Read the same configuration as `fit`, and neither load nor write anything."""

    def _parse_ckpt_path(self) -> None:
        """Do nothing: no checkpoint is needed."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing: everything is done when classes would be instantiated."""


class PromptCommandLine(_ReadOnlyCommandLine):
    """Read the settings that decide how a question is asked."""

    def instantiate_classes(self) -> None:
        """Keep the settings."""
        config = self.config[self.subcommand].as_dict()
        self.settings = settings_of(config["model"], config["data"])


class PlanCommandLine(_ReadOnlyCommandLine):
    """Make the memory plan of a configuration.

    Args:
        vram: memory in GB (10^9 bytes) of a GPU that need not be in this machine; None for this machine's GPU, or else its CPU.
        cards: GPUs that the model is laid over; None: as configured.
    """

    def __init__(self, vram: float | None, cards: int | None) -> None:
        self.vram, self.cards = vram, cards
        super().__init__()

    def instantiate_classes(self) -> None:
        """Make the plan from the settings that memory depends on."""
        config = self.config[self.subcommand]
        model, data = config.model, config.data
        policy, sampling = PolicyConfig(**model.policy), Sampling(**model.sampling)
        here = (
            torch.device("cuda", 0)
            if torch.cuda.is_available() and config.trainer.accelerator != "cpu"
            else torch.device("cpu")
        )
        cards = policy.devices_per_replica if self.cards is None else self.cards
        require("cards", cards, cards >= 1, "at least 1")
        device = memory_of_cards(replica_devices(here, cards)) if self.vram is None else gpu_of_size(self.vram, cards)
        engine = LocalEngine() if model.engine is None else instantiate_class((), model.engine.as_dict())
        step, rows = sampling.step_shape(data.prompts_per_step, data.max_prompt_tokens), sampling.max_rollout_rows
        terms = LossTerms(model.objective.beta > 0, model.objective.entropy_bonus > 0)
        self.plan = make_plan(policy, step, model.token_budget, rows, device, engine, terms)


class _HelpCommandLine(_ReadOnlyCommandLine):
    """Make the parsers, and read nothing."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Stand in for what would be read."""
        self.config = Namespace({"subcommand": sys.argv[1], sys.argv[1]: Namespace(seed_everything=False)})

    def instantiate_classes(self) -> None:
        """Do nothing."""


def settings_parser(verb: str) -> LightningArgumentParser:
    """The parser of the settings of `fit` or `validate`."""
    sys.argv = [sys.argv[0], verb, "--help"]
    return _HelpCommandLine()._subcommand_parsers[verb]
