"""Train on the workers of a Ray cluster, with any options of `fit`.

    python scripts/ray_train.py --workers 2 --config configs/quickstart.yaml --trainer.default_root_dir=/shared/outputs/run

Run it on a machine of the cluster (`ray start`); on any other it makes a cluster of that machine alone. The working directory and
the run directory must be in a file system that all machines share. After the failure of a worker Ray starts all of them again, and
the run goes on from its last checkpoint, as it does if the same command is given again. Needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from rl_lightning.cli.main import main as run
from rl_lightning.cli.quiet import quiet
from rl_lightning.types import UserError, first_line

BY_RAY = [  # Lightning takes ranks and devices from Ray
    f"--trainer.strategy={json.dumps({'class_path': 'ray.train.lightning.RayDDPStrategy'})}",
    f"--trainer.plugins={json.dumps([{'class_path': 'ray.train.lightning.RayLightningEnvironment'}])}",
    f"--trainer.callbacks+={json.dumps({'class_path': 'rl_lightning.callbacks.ray_report.RayReport'})}",
    "--trainer.num_nodes=1",
    "--ckpt_path=auto",
]
OURS = {word.partition("=")[0] for word in BY_RAY} - {"--trainer.callbacks+"} | {
    "--trainer.devices",
    "--trainer.accelerator",
}


def environment() -> dict[str, str]:
    """Environment variables of the workers."""
    return {
        "PYTHONHASHSEED": "0",  # the problems of some tasks depend on it
        "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # which shows all twice
        "SLURM_JOB_NAME": "interactive",  # where SLURM has started Ray, it is Ray that counts the ranks
    }


def train(given: dict[str, Any]) -> None:
    """What each worker runs.

    Raises:
        RuntimeError: `fit` has ended with an error, which it has printed.
    """
    os.chdir(given["directory"])
    on_cpu = "--trainer.accelerator=cpu" in given["words"]
    devices = os.environ["LOCAL_WORLD_SIZE"] if on_cpu else "auto"  # the workers of a computer share its memory
    status = run(["fit", *given["words"], f"--trainer.devices={devices}"])
    if status:
        raise RuntimeError(f"fit has ended with status {status}; what the workers have printed says why")


def run_directory(words: list[str]) -> Path:
    """The run directory, after a check of all settings.

    Raises:
        UserError: a mistake in the settings, which would otherwise be found by every worker, each time that it is started.
    """
    for word in words:
        if word.partition("=")[0] in OURS:
            raise UserError(
                f"{word}: this is set here; see --workers and --gpu, and name a new run directory to begin again"
            )
    quiet()
    from rl_lightning.cli.lightning_cli import RLCommandLine

    class Settings(RLCommandLine):
        def _run_subcommand(self, subcommand: str) -> None:
            """Do not train."""

    sys.argv = [sys.argv[0], "fit", *words, "--trainer.accelerator=cpu", "--trainer.devices=1", "--ckpt_path=auto"]
    return Path(Settings().trainer.default_root_dir).absolute()


def main() -> int:
    """Read the settings, and train; return the exit status."""
    parser = argparse.ArgumentParser("ray_train", allow_abbrev=False, description=__doc__)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--gpu", action="store_true", help="give each worker a GPU")
    parser.add_argument("--max_failures", type=int, default=3, help="how often failed workers are started again")
    own, rest = parser.parse_known_args()
    words = [*rest, *BY_RAY, f"--trainer.accelerator={'gpu' if own.gpu else 'cpu'}"]
    try:
        root = run_directory(rest)
        ray.init(runtime_env={"env_vars": environment()})
        TorchTrainer(
            train,
            train_loop_config={"words": words, "directory": os.getcwd()},
            scaling_config=ScalingConfig(num_workers=own.workers, use_gpu=own.gpu),
            run_config=RunConfig(
                name="ray", storage_path=str(root), failure_config=FailureConfig(max_failures=own.max_failures)
            ),
        ).fit()
    except UserError as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 2
    except TrainingFailedError:
        print(
            f"error: the workers have failed more than {own.max_failures} times; what they have printed says why",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
