"""What torchrun, SLURM, or whoever else starts the ranks, tells each of them by environment variables."""

from __future__ import annotations

import os

from rl_lightning.types import UserError, require

_BY_HAND = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def is_first_rank() -> bool:
    """Whether this process is the first of those that train together, the only one that prints."""
    if _is_torchrun():
        names: tuple[str, ...] = ("RANK",)  # SLURM may have started torchrun, and count the machines otherwise
    elif _is_slurm():
        names = ("SLURM_PROCID",)
    else:
        names = ("RANK", "NODE_RANK", "LOCAL_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def is_launched() -> bool:
    """Whether torchrun or SLURM has started this process, so that a run is resumed by their command."""
    return _is_torchrun() or _is_slurm()


def refuse_other_ranks(devices: int, nodes: int) -> None:
    """Refuse settings that do not count the ranks that were started: these would do the same work twice, or wait for each other in
    vain.

    Args:
        devices: ranks on each machine by the settings.
        nodes: machines by the settings.

    Raises:
        UserError: the launcher has started others; or several machines, and nobody says where the first is.
    """
    if _is_torchrun():
        _require("torchrun", devices, _number("LOCAL_WORLD_SIZE", 1), nodes, _number("GROUP_WORLD_SIZE", 1))
    elif _is_slurm():
        machines = _number("SLURM_NNODES", 1)
        _require("SLURM", devices, _number("SLURM_NTASKS", 1) // machines, nodes, machines)
    else:
        missing = ", ".join(name for name in _BY_HAND if name not in os.environ)
        if nodes > 1 and missing:
            raise UserError(
                f"trainer.num_nodes: {nodes} machines need {', '.join(_BY_HAND)} in the environment of each, or torchrun or srun; "
                f"not set: {missing}"
            )
        started = max(_number("WORLD_SIZE", 1), _number("RANK", 0) + 1)
        require("trainer.devices", devices, _number("LOCAL_RANK", 0) < devices, "above LOCAL_RANK of the environment")
        require("trainer.num_nodes", nodes, _number("NODE_RANK", 0) < nodes, "above NODE_RANK of the environment")
        ranks = devices * nodes
        require(
            "trainer.devices x trainer.num_nodes", ranks, ranks >= started, f"{started}, WORLD_SIZE of the environment"
        )


def _require(launcher: str, devices: int, on_each: int, nodes: int, machines: int) -> None:
    require(
        "trainer.num_nodes", nodes, nodes == machines, f"{machines}, the machines that {launcher} has started ranks on"
    )
    require(
        "trainer.devices",
        devices,
        devices == on_each,
        f"{on_each}, the ranks that {launcher} has started on each machine",
    )


def _is_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _is_slurm() -> bool:
    """Whether Lightning takes the ranks from SLURM, which it does not in an interactive job."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def _number(name: str, default: int) -> int:
    """The value of an environment variable."""
    value = os.environ.get(name) or str(default)
    require(name, value, value.isdecimal(), "a whole number")
    return int(value)
