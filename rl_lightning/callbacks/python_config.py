"""`config.yaml` of a run that was made from Python, so that it is resumed, asked and compared as one from the command line."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer

from rl_lightning.checkpointing.atomic_files import unused_path, write_atomically
from rl_lightning.checkpointing.recorded import Recorded, Unsayable, as_config
from rl_lightning.checkpointing.secrets import secret_names
from rl_lightning.data import PromptDataModule
from rl_lightning.module import GRPOModule

log = logging.getLogger(__name__)

_HEAD = (
    "# Made from Python: model and data whole; of the trainer what is below; the callbacks' settings are not in here.\n"
)


def write_config(trainer: Trainer, module: Any, file: Path, resumed: bool) -> None:
    """Write the settings, if a config can have them; else say in a line why there is no config.yaml.

    Args:
        trainer: of the run.
        module: the LightningModule.
        file: where to; of a resumed run a file beside it, if the settings are others.
        resumed: whether the run goes on with an earlier one's file.
    """
    try:
        text = _HEAD + _config(trainer, module)
    except Unsayable as error:
        log.warning(
            f"there is no {file.name} for this run, because a config cannot have all its settings: {error}; give report, chat and "
            "the like a --config of your own"
        )
        if not resumed:
            file.unlink(missing_ok=True)  # of the start that this run takes the place of
        return
    if resumed and file.exists() and file.read_text(encoding="utf-8") != text:
        file = unused_path(file)
    write_atomically(file, text)


def _config(trainer: Trainer, module: Any) -> str:
    data = trainer.datamodule  # type: ignore[attr-defined]
    for made, known in ((module, GRPOModule), (data, PromptDataModule)):
        if type(made) is not known:
            raise Unsayable(f"{type(made).__qualname__} is not {known.__name__}, which the command line has")
    if data.arguments["seed"] != module.arguments["seed"]:
        raise Unsayable("the seeds of model and data differ")
    config = {
        "seed_everything": module.arguments["seed"],
        "trainer": {
            "accelerator": trainer.strategy.root_device.type.replace("cuda", "gpu"),
            "default_root_dir": str(trainer.default_root_dir),
            "max_steps": trainer.max_steps,
        },
        "model": as_config(_without_seed(module)),
        "data": as_config(_without_seed(data)),
    }
    if secret := next(iter(secret_names(config)), None):
        raise Unsayable(f"{secret} looks like a secret, which belongs into no file; read it from the environment")
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)


def _without_seed(of: Recorded) -> dict[str, Any]:
    return {name: value for name, value in of.arguments.items() if name != "seed"}
