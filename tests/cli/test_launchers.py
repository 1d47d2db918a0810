"""What launchers tell the ranks: who speaks, how many there are, and what the command line does with it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rl_lightning.checkpointing.checkpoints import STATE_FILE, resolve_checkpoint, write_checkpoint
from rl_lightning.cli.launchers import is_first_rank, is_launched, refuse_other_ranks
from rl_lightning.cli.lightning_cli import RLCommandLine
from rl_lightning.cli.main import main
from rl_lightning.types import UserError
from tests.conftest import QUICKSTART

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": 2, "GROUP_WORLD_SIZE": 3, "WORLD_SIZE": 6}
SLURM = {"SLURM_NTASKS": 6, "SLURM_NNODES": 3, "SLURM_JOB_NAME": "grpo"}
BY_HAND = {"MASTER_ADDR": "first", "MASTER_PORT": 29500}
NAMES = [
    *TORCHRUN,
    *SLURM,
    *BY_HAND,
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "SLURM_PROCID",
    "SLURM_NTASKS_PER_NODE",
]


@pytest.fixture
def told(monkeypatch):
    """Set the environment that a launcher makes."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def tell(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return tell


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        (TORCHRUN | {"RANK": 0, "LOCAL_RANK": 0}, True),
        (TORCHRUN | {"RANK": 2, "LOCAL_RANK": 0, "GROUP_RANK": 1}, False),
        (TORCHRUN | {"RANK": 0, "LOCAL_RANK": 0, "SLURM_NTASKS": 3, "SLURM_PROCID": 2}, True),
        (TORCHRUN | {"RANK": 2, "LOCAL_RANK": 0, "SLURM_NTASKS": 3, "SLURM_PROCID": 0}, False),
        (SLURM | {"SLURM_PROCID": 0}, True),
        (SLURM | {"SLURM_PROCID": 3}, False),
        (BY_HAND | {"NODE_RANK": 0, "LOCAL_RANK": 0}, True),
        (BY_HAND | {"NODE_RANK": 0, "LOCAL_RANK": 1}, False),
        (BY_HAND | {"NODE_RANK": 1}, False),
        ({"SLURM_NTASKS": 6, "SLURM_JOB_NAME": "interactive", "SLURM_PROCID": 1}, True),
    ],
)
def test_only_the_first_rank_speaks(told, variables, first):
    told(**variables)
    assert is_first_rank() is first
    assert is_launched() is (variables.get("SLURM_JOB_NAME") == "grpo" or "TORCHELASTIC_RUN_ID" in variables)


@pytest.mark.parametrize(
    ("variables", "right", "wrong", "message"),
    [
        (TORCHRUN, (2, 3), (1, 1), "trainer.num_nodes: 1 is not allowed; it must be 3, the machines that torchrun has"),
        (TORCHRUN, (2, 3), (1, 3), "trainer.devices: 1 is not allowed; it must be 2, the ranks that torchrun has"),
        (SLURM, (2, 3), (6, 1), "trainer.num_nodes: 6? ?1 is not allowed; it must be 3"),
        (SLURM, (2, 3), (1, 3), "trainer.devices: 1 is not allowed; it must be 2, the ranks that SLURM has"),
        (BY_HAND | {"NODE_RANK": 1}, (1, 2), (1, 1), "trainer.num_nodes: 1 is not allowed; it must be above NODE_RANK"),
        (BY_HAND | {"LOCAL_RANK": 1}, (2, 1), (1, 1), "trainer.devices: 1 is not allowed; it must be above LOCAL_RANK"),
        ({"WORLD_SIZE": 2, "RANK": 1}, (2, 1), (1, 1), "devices x trainer.num_nodes: 1 is not allowed; it must be 2"),
        (BY_HAND, (2, 1), (2, 2), "2 machines need MASTER_ADDR, MASTER_PORT, NODE_RANK in .* not set: NODE_RANK"),
        ({"RANK": "first"}, None, (1, 1), "RANK: 'first' is not allowed; it must be a whole number"),
    ],
)
def test_settings_that_count_other_ranks_are_refused(told, variables, right, wrong, message):
    told(**variables)
    if right:
        refuse_other_ranks(*right)
    with pytest.raises(UserError, match=message):
        refuse_other_ranks(*wrong)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (TORCHRUN | {"RANK": 0, "LOCAL_RANK": 0}, "error: trainer.num_nodes: 1 is not allowed; it must be 3"),
        (SLURM | {"SLURM_PROCID": 0}, "error: trainer: You set `--ntasks=6` in your SLURM bash script"),
    ],
)
def test_a_process_of_several_does_not_train_alone(told, tmp_path, capsys, variables, message):
    told(**variables)
    assert main(["fit", "--config", str(QUICKSTART), f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("left", "resumed", "again"),
    [((), None, True), (("config.yaml",), None, True), (("checkpoint-2",), "checkpoint-2", False)],
)
def test_auto_resumes_if_there_is_a_checkpoint_else_begins(tmp_path, left, resumed, again):
    for name in left:
        if name.startswith("checkpoint"):
            write_checkpoint(tmp_path / name, lambda directory: (directory / STATE_FILE).write_text("state"))
        else:
            (tmp_path / name).write_text("")
    asked = SimpleNamespace(
        ckpt_path="auto",
        trainer=SimpleNamespace(default_root_dir=str(tmp_path)),
        run_directory=SimpleNamespace(start_again=False),
    )
    RLCommandLine._resolve_ckpt_path(SimpleNamespace(config=SimpleNamespace(subcommand="fit")), asked)
    assert asked.ckpt_path == (resumed and str(tmp_path / resumed / STATE_FILE))
    assert asked.run_directory.start_again is again


def test_auto_does_not_begin_again_where_every_checkpoint_is_damaged(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(UserError, match="no intact checkpoint"):
        resolve_checkpoint("auto", tmp_path)
