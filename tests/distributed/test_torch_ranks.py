"""The ranks of torch.distributed: the collective's contract in two processes, and whole runs on the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from safetensors.torch import load_file
from torch.nn import Linear

from rl_lightning.cli.main import main
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout.vllm_weights import shared_model
from rl_lightning.training.ranks import join_ranks, refuse_different_starts
from rl_lightning.types import UserError
from tests.conftest import ROOT
from tests.distributed.contract import contract
from tests.rollout.fake_vllm_server import FakeServer

CONFIG = ROOT / "configs" / "quickstart.yaml"
FEW = [
    *("--data.eval_num_samples=3", "--data.prompts_per_step=3", "--fixed_eval.fixed_eval_steps=2"),
    *("--model.policy.quantization=none", "--model.lr_schedule=constant", "--model.sampling.num_generations=8"),
    *("--checkpoint.save_steps=2", "--model.sampling.max_resample=1", "--data.curriculum={}"),
]


def test_the_contract_of_a_collective_in_two_processes(tmp_path):
    mp.spawn(contract, (str(tmp_path / "meet"),), nprocs=2)


TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0")


def start(root: Path, *words: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, *launcher, "-m", "rl_lightning", "fit", "--config", str(CONFIG), *FEW]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, f"--trainer.default_root_dir={root}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def fit(root: Path, *words: str, launcher: tuple[str, ...] = ()) -> str:
    process = start(root, *words, launcher=launcher)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    return said


def fit_here(root: Path, *words: str) -> None:
    """The same on one rank, in this process, which has imported everything already."""
    command = ["fit", "--config", str(CONFIG), *FEW, f"--trainer.default_root_dir={root}", *words]
    assert main(command) == 0


def alike(one: Path, other: Path, step: int) -> None:
    """The same completions and evaluations, and adapters that differ by rounding only."""
    a, b = (pd.read_parquet(root / "rollouts") for root in (one, other))
    assert len(a) == len(b) > 0
    for column in ("prompt", "completion", "level", "reward", "advantage", "exact"):
        assert a[column].equals(b[column]), column
    for name in ("entropy", "mean_logprob"):
        assert a[name].isna().equals(b[name].isna())
        assert (a[name] - b[name]).abs().max() < 1e-3
    first, second = (load_file(root / f"checkpoint-{step}" / "adapter_model.safetensors") for root in (one, other))
    for name, values in first.items():
        assert (values - second[name]).norm() <= 1e-3 * values.norm() + 1e-6, name
    rows = [
        pd.read_json(root / "eval_results" / f"eval_step_{step}.json", typ="series")["rows"] for root in (one, other)
    ]
    assert rows[0] == rows[1]


def test_two_ranks_train_evaluate_and_write_what_one_does(tmp_path):
    fit_here(tmp_path / "alone", "--trainer.max_steps=4")
    said = fit(tmp_path / "two", "--trainer.max_steps=4", "--trainer.devices=2", launcher=TORCHRUN)
    assert "2 ranks share the 3 prompts of a step" in said
    assert said.count("step 0: accuracy") == 1, "only the first rank speaks"
    alike(tmp_path / "alone", tmp_path / "two", 4)


def test_two_ranks_sample_by_one_server_what_one_does(tmp_path):
    """Each by an adapter of its own."""
    policy = Policy(PolicyConfig("tiny", quantization="none"), torch.device("cpu"))
    server = FakeServer(shared_model(policy, tmp_path / "shared"))
    engine = [
        "--model.engine=VLLMServer",
        f"--model.engine.url={server.url}",
        f"--model.engine.directory={tmp_path / 'shared'}",
    ]
    fit(tmp_path / "alone", "--trainer.max_steps=2", *engine)  # the server is in this process
    alone = {body["lora_name"] for body in server.bodies("/v1/load_lora_adapter")}
    fit(tmp_path / "two", "--trainer.max_steps=2", "--trainer.devices=2", *engine, launcher=TORCHRUN)
    both = {body["lora_name"] for body in server.bodies("/v1/load_lora_adapter")} - alone
    server.end()
    assert len(both) == 2 * len(alone)
    alike(tmp_path / "alone", tmp_path / "two", 2)


def second_rank(process: subprocess.Popen) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (found,) = [pid for pid in children if b"LOCAL_RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    return int(found)


def ends(pid: int) -> None:
    """Wait until a process has ended, whether anybody has asked for its status or not."""
    deadline = time.monotonic() + 60
    while (stat := Path(f"/proc/{pid}/stat")).exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the other rank goes on"
        time.sleep(0.2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("number", "first"), [(signal.SIGTERM, True), (signal.SIGKILL, False)])
def test_a_signal_to_one_rank_ends_all(tmp_path, number, first):
    process = start(tmp_path / "run", "--trainer.max_steps=1000", "--trainer.devices=2")
    deadline = time.monotonic() + 240
    while not any((tmp_path / "run").glob("checkpoint-*/trainer.ckpt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    other = second_rank(process)
    os.kill(process.pid if first else other, number)
    said, _ = process.communicate(timeout=120)
    ends(other)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM, said[-2000:]
        assert "to resume: " in said
    else:
        assert process.returncode != 0
        assert "another rank has ended" in said
        assert "Traceback" not in said


class UnknownDDPStrategy(DDPStrategy):
    """May do anything with the gradients."""


@pytest.mark.parametrize(
    ("strategy", "stage", "prompts", "said"),
    [
        (UnknownDDPStrategy, "fit", 4, "trainer.strategy: 'unknownddp' is not allowed; it must be ddp"),
        (FSDPStrategy, "fit", 4, "trainer.strategy: FSDP would split each weight"),
        (DDPStrategy, "validate", 4, "trainer.devices: 2 is not allowed; it must be 1 in validate"),
        (DDPStrategy, "fit", 1, "data.prompts_per_step: 1 is not allowed; it must be at least 2"),
    ],
)
def test_what_is_not_supported_is_one_line(strategy, stage, prompts, said):
    data = SimpleNamespace(prompts_per_step=prompts)
    with pytest.raises(UserError, match=said):
        join_ranks(SimpleNamespace(strategy=strategy(), world_size=2, datamodule=data), stage)


def test_a_strategy_that_does_not_fit_the_accelerator_is_one_line(tmp_path, capsys):
    words = [
        "fit",
        "--config",
        str(CONFIG),
        "--trainer.strategy=fsdp",
        f"--trainer.default_root_dir={tmp_path / 'run'}",
    ]
    assert main(words) == 2
    assert "error: trainer: The strategy `fsdp` requires a GPU" in capsys.readouterr().err


class Apart:
    """Another rank, which begins otherwise."""

    def __init__(self, number: int, value: object) -> None:
        self._number, self._value = number, value

    def gather(self, mine):
        theirs = list(mine)
        theirs[self._number] = self._value
        return [mine, tuple(theirs)]


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (
            Apart(0, 0),
            "rank 1 begins at step 0, and rank 0 at step 4; trainer.default_root_dir must be in a file system",
        ),
        (Apart(1, {"learning_rate": "2"}), "learning_rate on rank 1: '2' is not allowed; it must be 1, as on rank 0"),
        (Apart(2, "another"), "the weights of rank 1 do not begin as those of rank 0"),
    ],
)
def test_ranks_that_do_not_begin_alike_are_refused(theirs, said):
    with pytest.raises(UserError, match=said):
        refuse_different_starts(starting(torch.zeros(2)), theirs)


def starting(weights: torch.Tensor) -> SimpleNamespace:
    model = Linear(2, 1, bias=False)
    model.weight.data.copy_(weights)
    trainer, settings = SimpleNamespace(max_steps=5), lambda: {"learning_rate": "1"}
    return SimpleNamespace(trainer=trainer, loaded_step=4, settings=settings, policy=SimpleNamespace(model=model))


def test_a_base_of_other_weights_is_another_start():
    """Fresh adapters are the same on any base."""
    starts = []
    for weights in (torch.zeros(2), torch.ones(2)):
        refuse_different_starts(starting(weights), SimpleNamespace(gather=lambda mine: starts.append(mine) or [mine]))
    assert starts[0] != starts[1]
