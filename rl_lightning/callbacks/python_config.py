"""`config.yaml` of a run that was made from Python, so that it is resumed, asked and compared as one from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer

from rl_lightning.checkpointing.atomic_files import write_atomically
from rl_lightning.checkpointing.recorded import Recorded, as_config

_HEAD = """\
# From Python: the settings of model, data and trainer. Those of the callbacks are not in here.
"""


def write_config(trainer: Trainer, module: Any, file: Path) -> None:
    """Write the settings, if the module and the data module know theirs.

    Args:
        trainer: of the run.
        module: the LightningModule.
        file: where to; a file that is there is left as it is.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if file.exists() or not (isinstance(module, Recorded) and isinstance(data, Recorded)):
        return
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
    head = _HEAD
    if data.arguments["seed"] != module.arguments["seed"]:
        head += f"# The data module's seed was {data.arguments['seed']}, which a config cannot say: there it is seed_everything.\n"
    write_atomically(file, head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120))


def _without_seed(of: Recorded) -> dict[str, Any]:
    return {name: value for name, value in of.arguments.items() if name != "seed"}
