"""The commands `fit` and `validate` on LightningCLI."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

from rl_lightning.callbacks import (
    AdapterCheckpoint,
    CurriculumLog,
    Diagnostics,
    FixedEval,
    GroupVariance,
    LearningCurve,
    LivePanel,
    MemoryPlan,
    PushToHub,
    RolloutLog,
    RolloutTable,
    RunDirectory,
    StopAtSignal,
)
from rl_lightning.callbacks.run_directory import is_taken, refuse_taken
from rl_lightning.checkpointing.atomic_files import unused_path, write_atomically
from rl_lightning.checkpointing.checkpoints import STATE_FILE, checkpoints, resolve_checkpoint
from rl_lightning.checkpointing.model_files import is_adapter
from rl_lightning.checkpointing.secrets import secret_names
from rl_lightning.cli import own_tasks
from rl_lightning.cli.config_places import refuse_broken_configs
from rl_lightning.cli.launchers import refuse_other_ranks
from rl_lightning.cli.mistakes import in_its_setting, located, mistake, refuse_null_and_plain
from rl_lightning.cli.program import program, version
from rl_lightning.cli.shipped_configs import with_config_files
from rl_lightning.cli.users_mistakes import users_mistake, users_mistakes
from rl_lightning.data import PromptDataModule
from rl_lightning.loggers import MetricsCSV
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.training.ranks import first_devices
from rl_lightning.types import UserError

__all__ = ["MisconfigurationException", "RLCommandLine"]

log = logging.getLogger(__name__)

_TRAINER_DEFAULTS = {
    "default_root_dir": "outputs/run",
    "devices": 1,
    "max_epochs": -1,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}

_CALLBACKS = {
    "stop_at_signal": StopAtSignal,
    "memory_plan": MemoryPlan,
    "group_variance": GroupVariance,
    "curriculum_log": CurriculumLog,
    "progress_bar": LivePanel,
    "rollout_log": RolloutLog,
    "rollout_table": RolloutTable,
    "fixed_eval": FixedEval,
    "diagnostics": Diagnostics,
    "learning_curve": LearningCurve,
    "run_directory": RunDirectory,
    "checkpoint": AdapterCheckpoint,
    "push_to_hub": PushToHub,
}
"""Callbacks of every run, each configurable by its key, whatever `trainer.callbacks` says. `stop_at_signal` comes first, so that it
covers what the others do at the start; the order of the rest does not matter."""


_ENVIRONMENTS = (LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment)
"""Where Lightning by itself takes the ranks from."""


class _Parser(LightningArgumentParser):
    """Report a mistake as one line, instead of with the whole usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("prog", program())
        super().__init__(*args, allow_abbrev=False, **kwargs)  # a mistyped name must not pass for an abbreviation

    def parse_args(self, args: Sequence[str] | None = None, *others: Any, **more: Any) -> Any:  # type: ignore[override]
        words = with_config_files(sys.argv[1:] if args is None else args)
        refuse_broken_configs(words)
        return super().parse_args(words, *others, **more)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise mistake(self, str(message), with_config_files(sys.argv[1:])) from ex


class _SaveConfig(SaveConfigCallback):
    """Write `config.yaml` with all settings; that of a resumed run gets another name next to the first one. A run that starts again
    replaces it, because nothing is left of what it describes."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Write nothing yet: RunDirectory has not checked yet whether the directory is free."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            text = f"# {version()}\n{self.parser.dump(self.config, skip_none=False)}"
            path = Path(trainer.default_root_dir) / "config.yaml"
            if secret := next(secret_names(yaml.safe_load(text)), None):
                log.warning(
                    f"{path} has the setting {secret}, which looks like a secret; whoever reads the run reads it (report and model "
                    "cards leave it out): better have your class read it from the environment"
                )
            again = any(isinstance(each, RunDirectory) and each.start_again for each in trainer.callbacks)  # type: ignore[attr-defined]
            write_atomically(path if again else unused_path(path), text)


class RLCommandLine(LightningCLI):
    """The command line of `fit` and `validate`; running is part of construction, as in LightningCLI."""

    def __init__(self) -> None:
        # Help shows the docstrings of attributes, for which all source files are read.
        set_parsing_settings(docstring_parse_attribute_docstrings=any("help" in word for word in sys.argv))
        super().__init__(
            GRPOModule,
            PromptDataModule,
            trainer_defaults=_TRAINER_DEFAULTS,
            seed_everything_default=0,
            save_config_callback=_SaveConfig,
            parser_class=_Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only the one that is called: a parser of all settings takes time to make."""
        arguments = {"model", "datamodule", "train_dataloaders", "val_dataloaders", "dataloaders", "weights_only"}
        return {sys.argv[1]: arguments}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key, callback in _CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
        own_tasks.read_with(parser)
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read the settings; a mistake is one line that says where it is."""
        words = with_config_files(sys.argv[1:])
        try:
            super().parse_arguments(parser, args)
        except UserError as error:
            raise located(in_its_setting(error), words) from error
        verb = self.config.subcommand
        refuse_null_and_plain(self._subcommand_parsers[verb], self.config[verb], words)

    def _parse_ckpt_path(self) -> None:
        """Resolve the checkpoint, or refuse it, before anything is loaded.

        Lightning's own version would let hyperparameters in the checkpoint override the config.
        """
        config = self.config[self.config.subcommand]
        self._resolve_ckpt_path(config)
        policy = config.model.policy
        if policy.adapter is not None:  # config.yaml is to have the adapter's own settings
            vars(policy).update(vars(PolicyConfig(**policy)))

    def _resolve_ckpt_path(self, config: Any) -> None:
        root = Path(config.trainer.default_root_dir)
        fitting = self.config.subcommand == "fit"
        if (
            fitting
            and not checkpoints(root)
            and (config.ckpt_path == "auto" or (config.ckpt_path == "last" and is_taken(root)))
        ):
            print(f"no checkpoint in {root} yet: starting from the beginning")
            config.ckpt_path, config.run_directory.start_again = None, True
            return
        if (
            not fitting
            and config.ckpt_path is not None
            and _is_adapter_only(path := Path(config.ckpt_path).expanduser())
        ):
            config.model.policy.adapter, config.ckpt_path = str(path), None
        if config.ckpt_path is not None:
            file = resolve_checkpoint(config.ckpt_path, root)
            config.ckpt_path = str(file)
            if not fitting and config.model.policy.adapter is not None:
                # The adapter that the run began from is not needed, and may be gone; that of the checkpoint has the same shape.
                config.model.policy.adapter = str(file.parent)
            if file.resolve().parents[1] == root.resolve():
                return
        if fitting:  # a new run, or one that starts from another run's checkpoint
            refuse_taken(root)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # A checkpoint holds numbers and text only: loading it must not run code that somebody put into it.
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    @property
    def stopped_by(self) -> int | None:
        """The number of the signal that stopped the run, or None."""
        return next((c.received for c in self.trainer.callbacks if isinstance(c, StopAtSignal)), None)  # type: ignore[attr-defined]

    def instantiate_classes(self) -> None:
        try:
            with users_mistakes():
                super().instantiate_classes()
        except UserError as error:
            raise _located(error) from error

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except UserError as error:
            raise _located(error) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = self._get(self.config_init, "trainer")
        if settings["logger"] in (None, True):  # `validate` leaves metrics.csv alone: its results are in eval_results
            kwargs["logger"] = self.subcommand == "fit" and MetricsCSV(settings["default_root_dir"])
        try:
            if (per_replica := self.model.policy_config.devices_per_replica) > 1 and settings["accelerator"] != "cpu":
                kwargs["devices"] = first_devices(settings["devices"], per_replica)
            trainer = super().instantiate_trainer(**kwargs)
        except (
            ValueError,
            TypeError,
            RuntimeError,
        ) as error:  # Lightning's, of settings that do not fit together or SLURM's job
            raise users_mistake(error) or UserError(f"trainer: {' '.join(str(error).split())}") from error
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if environment is None or type(environment) in _ENVIRONMENTS:  # else a plugin counts the ranks, such as Ray's
            refuse_other_ranks(trainer.num_devices, trainer.num_nodes)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        if config.get("enable_progress_bar") is False:  # None is the default and means True
            callbacks = [callback for callback in callbacks if not isinstance(callback, LivePanel)]
        return super()._instantiate_trainer(config, callbacks)


def _located(error: UserError) -> UserError:
    """The error of a setting with its file and line; callbacks name their class, for those who make them in Python."""
    name, dot, rest = str(error).partition(".")
    sections = {callback.__name__: key for key, callback in _CALLBACKS.items()}
    if name in sections:
        error = UserError(f"{sections[name]}{dot}{rest}")
    return located(error, with_config_files(sys.argv[1:]))


def _is_adapter_only(path: Path) -> bool:
    """Whether the directory holds only an adapter, with no training state to resume from."""
    return is_adapter(path) and not (path / STATE_FILE).exists()
