"""The commands `fit` and `validate` on LightningCLI, and the configuration of `plan`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback, instantiate_class
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
from rl_lightning.cli import own_tasks
from rl_lightning.cli.command_parser import users_mistake, users_mistakes
from rl_lightning.cli.launchers import refuse_other_ranks
from rl_lightning.cli.program import program, version
from rl_lightning.cli.shipped_configs import with_config_files
from rl_lightning.cli.single_prompt import settings_of
from rl_lightning.data import PromptDataModule
from rl_lightning.memory import gpu_of_size, make_plan, memory_of_cards
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.adapters import is_adapter
from rl_lightning.policy.placement import replica_devices
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.training.ranks import first_devices
from rl_lightning.types import UserError, require

__all__ = ["MisconfigurationException", "RLCommandLine"]

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # --help shows the attribute docstrings of dataclasses

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


_NO_CLASS = re.compile(r'^Parser key "([\w.]+)":.* Expected a dot import path string: (\S+)')
"""How jsonargparse says that a setting's class cannot be found."""

_NO_PATH = re.compile(r"- Expected a path but .* either not accessible or invalid - ")
"""How it says that a value is no file of settings, before it says what is wrong with the value."""

_OR_NULL = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - (.*?) - Expected a <class 'NoneType'>"
)
"""How it says what is wrong with a value that may also be null."""


class _Parser(LightningArgumentParser):
    """Report a mistake as one line, instead of with the whole usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("prog", program())
        super().__init__(*args, allow_abbrev=False, **kwargs)  # a mistyped name must not pass for an abbreviation

    def parse_args(self, args: Sequence[str] | None = None, *others: Any, **more: Any) -> Any:  # type: ignore[override]
        return super().parse_args(with_config_files(sys.argv[1:] if args is None else args), *others, **more)

    def read_own_tasks(self) -> None:
        """Accept a task's `class_path`, and name what is wrong with a task, wherever `data.datasets` is read from; see
        `own_tasks`."""
        action: Any = next(each for each in self._actions if each.dest == "data.datasets")
        action._check_type = own_tasks.checking(action._check_type)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(str(message).split()).partition(" Given value type:")[0]
        line = _OR_NULL.sub(r"\1", _NO_PATH.sub("", line))
        if found := _NO_CLASS.search(line):
            setting, value = found.groups()
            shown = f"fit --{setting}.help CLASS shows it" if "." in setting else "docs/own_tasks.md lists them"
            raise UserError(
                f"{setting}: there is no class {value!r}; name one that ships ({shown}), or give the "
                "path of your own class, such as my_package.MyClass"
            )
        raise UserError(line)


class _SaveConfig(SaveConfigCallback):
    """Write `config.yaml` with all settings; that of a resumed run gets another name next to the first one."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Write nothing yet: RunDirectory has not checked yet whether the directory is free."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            text = f"# {version()}\n{self.parser.dump(self.config, skip_none=False)}"
            write_atomically(unused_path(Path(trainer.default_root_dir) / "config.yaml"), text)


class RLCommandLine(LightningCLI):
    """The command line of `fit` and `validate`; running is part of construction, as in LightningCLI."""

    def __init__(self) -> None:
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
        arguments = {"model", "datamodule", "train_dataloaders", "val_dataloaders", "dataloaders", "weights_only"}
        return {"fit": arguments, "validate": arguments}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key, callback in _CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
        cast(_Parser, parser).read_own_tasks()
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

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
        with users_mistakes():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = self._get(self.config_init, "trainer")
        if settings["logger"] in (
            None,
            True,
        ):  # RunDirectory logs to metrics.csv, and the results of `validate` are in eval_results
            kwargs["logger"] = False
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
        self.plan = make_plan(policy, step, model.token_budget, rows, device, engine, model.objective.beta > 0)


def _is_adapter_only(path: Path) -> bool:
    """Whether the directory holds only an adapter, with no training state to resume from."""
    return is_adapter(path) and not (path / STATE_FILE).exists()
