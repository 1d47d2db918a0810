"""fit and validate, by LightningCLI."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from rl_lightning.callbacks import (
    AdapterCheckpoint,
    CurriculumLog,
    FixedEval,
    GroupVariance,
    LearningCurve,
    LivePanel,
    MemoryPlan,
    RolloutLog,
    RolloutTable,
    RunDirectory,
    StallWatch,
    StopAtSignal,
)
from rl_lightning.callbacks.run_directory import is_taken, refuse_taken
from rl_lightning.checkpoints import STATE_FILE, checkpoints, resolve_checkpoint
from rl_lightning.data import ReasoningGymDataModule
from rl_lightning.loggers import MetricsCSV
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.adapters import adapter_shape, is_adapter
from rl_lightning.policy.plan import card_of, card_of_size, make_plan, step_work
from rl_lightning.rollout import Sampling
from rl_lightning.types import UserError
from rl_lightning.whole_files import unused, write_whole

__all__ = ["MisconfigurationException", "RLCommandLine"]

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # --help shows what the dataclasses' fields mean

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
    "stall_watch": StallWatch,
    "learning_curve": LearningCurve,
    "run_directory": RunDirectory,
    "checkpoint": AdapterCheckpoint,
}
"""Always there, each configurable under its name, whatever a later config file says of `trainer.callbacks`."""


class _Parser(LightningArgumentParser):
    """One line for a mistake, instead of the whole usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)  # a mistyped name must not pass for a longer one

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(" ".join(str(message).split()).partition(" Given value type:")[0])


class _SaveConfig(SaveConfigCallback):
    """`config.yaml`, whole; a resumed run's goes beside the first one."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Nothing yet: RunDirectory has still to see whether the directory is free."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            text = self.parser.dump(self.config, skip_none=False)
            write_whole(unused(Path(trainer.default_root_dir) / "config.yaml"), text)


class RLCommandLine(LightningCLI):
    """fit and validate."""

    def __init__(self) -> None:
        super().__init__(
            GRPOModule,
            ReasoningGymDataModule,
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
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    _adapter: Path | None = None

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint, or refuse, before anything is loaded. Lightning's own version would let hyperparameters in the
        checkpoint override the config."""
        config = self.config[self.config.subcommand]
        root = Path(config.trainer.default_root_dir)
        fitting = self.config.subcommand == "fit"
        if fitting and config.ckpt_path == "last" and is_taken(root) and not checkpoints(root):
            print(f"no checkpoint in {root} yet: starting from the beginning")
            config.ckpt_path, config.run_directory.start_again = None, True
            return
        if not fitting and config.ckpt_path is not None and _is_bare(path := Path(config.ckpt_path).expanduser()):
            self._adapter, config.ckpt_path = path, None  # of any shape that the policy can have
            config.model.policy.lora_r, config.model.policy.lora_alpha = adapter_shape(path)
        if config.ckpt_path is not None:
            file = resolve_checkpoint(config.ckpt_path, root)
            config.ckpt_path = str(file)
            if file.resolve().parents[1] == root.resolve():
                return
        if fitting:  # a new run, or one that goes on from another run's checkpoint
            refuse_taken(root)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # A checkpoint is numbers and text: loading one runs no code that somebody put into it.
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    @property
    def stopped_by(self) -> int | None:
        """The signal that ended the run before its time, or None."""
        return next((c.received for c in self.trainer.callbacks if isinstance(c, StopAtSignal)), None)  # type: ignore[attr-defined]

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            while cause and not isinstance(cause, ModuleNotFoundError):  # it comes wrapped in all types that were tried
                cause = cause.__cause__
            if cause is None:
                raise
            raise UserError(f"a package is missing: {' '.join(str(cause).split())}") from error
        self.model.adapter = self._adapter

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = self._get(self.config_init, "trainer")
        if settings["logger"] in (
            None,
            True,
        ):  # validate leaves the run's metrics alone: its figures are in eval_results
            kwargs["logger"] = self.subcommand == "fit" and MetricsCSV(settings["default_root_dir"])
        return super().instantiate_trainer(**kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        if config.get("enable_progress_bar") is False:  # None, which is the default, is Lightning's for true
            callbacks = [callback for callback in callbacks if not isinstance(callback, LivePanel)]
        return super()._instantiate_trainer(config, callbacks)


class PlanCommandLine(RLCommandLine):
    """Reads what `fit` reads, loads and writes nothing, and keeps the plan.

    Args:
        vram: GB of a GPU that need not be here, or None for this machine's GPU, or else its CPU.
    """

    def __init__(self, vram: float | None) -> None:
        self.vram = vram
        super().__init__()

    def _parse_ckpt_path(self) -> None:
        """None is needed."""

    def instantiate_classes(self) -> None:
        """Only what decides on memory."""
        config = self.config[self.subcommand]
        model, data = config.model, config.data
        policy, sampling = PolicyConfig(**model.policy), Sampling(**model.sampling)
        here = (
            torch.device("cuda", 0)
            if torch.cuda.is_available() and config.trainer.accelerator != "cpu"
            else torch.device("cpu")
        )
        card = card_of(here) if self.vram is None else card_of_size(self.vram)
        work = step_work(sampling, data.prompts_per_step, data.max_prompt_tokens)
        self.plan = make_plan(policy, work, model.token_budget, sampling.max_rollout_rows, card)

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


def _is_bare(path: Path) -> bool:
    """Whether it is an adapter alone, with nothing to resume from."""
    return is_adapter(path) and not (path / STATE_FILE).exists()
