"""Which GPUs each rank's model is laid over, what is refused, and one sum of gradients that are on several cards."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn

from rl_lightning.cli.main import main
from rl_lightning.distributed import SingleProcess, sum_gradients
from rl_lightning.training.ranks import devices_of_replica, first_devices, join_ranks
from rl_lightning.types import UserError
from tests.conftest import QUICKSTART
from tests.virtual_cards import card, virtual_cards


def gpu(number: int) -> torch.device:
    return torch.device("cuda", number)


@pytest.fixture
def eight_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)


@pytest.mark.parametrize(
    ("devices", "first"),
    [(1, [0]), (2, [0, 3]), ("2", [0, 3]), (-1, [0, 3]), ("auto", [0, 3]), ([1, 5], [1, 5]), ("1,5", "1,5")],
)
def test_a_number_of_devices_counts_replicas(devices, first, eight_gpus):
    assert first_devices(devices, 3) == first


def test_devices_that_are_no_number_are_refused(eight_gpus):
    with pytest.raises(UserError, match="trainer.devices: 'x' is not allowed; it must be a number of replicas"):
        first_devices("x", 3)


def test_without_gpus_the_setting_stays():
    assert first_devices(2, 3) == 2


def test_each_rank_takes_the_gpus_after_its_own(eight_gpus):
    strategy = SimpleNamespace(root_device=gpu(3), parallel_devices=[gpu(0), gpu(3), gpu(6)])
    assert devices_of_replica(strategy, 2) == [gpu(3), gpu(4)]
    assert devices_of_replica(strategy, 3) == [gpu(3), gpu(4), gpu(5)]
    with pytest.raises(
        UserError, match=r"trainer.devices: \[0, 3, 6\] is not allowed; it must be first GPUs that are 4 apart"
    ):
        devices_of_replica(strategy, 4)
    with pytest.raises(
        UserError, match="policy.devices_per_replica: 3 .* it must be at most 2, the number of GPUs from cuda:6"
    ):
        devices_of_replica(SimpleNamespace(root_device=gpu(6)), 3)
    with pytest.raises(UserError, match="trainer.devices: 0 is not allowed; it must be at least 1, with 9 GPUs each"):
        first_devices("auto", 9)
    ranks = SimpleNamespace(root_device=torch.device("cpu"), parallel_devices=[torch.device("cpu")] * 2)
    assert devices_of_replica(ranks, 1) == [torch.device("cpu")]


@pytest.mark.parametrize("name", ["FSDP", "DeepSpeed", "ModelParallel"])
def test_strategies_that_split_weights_are_refused_with_the_reason(name):
    strategy = type(f"{name}Strategy", (), {"root_device": torch.device("cpu")})()
    reason = rf"trainer.strategy: {name} .*bitsandbytes #1945.*model.policy.devices_per_replica"
    with pytest.raises(UserError, match=reason):
        devices_of_replica(strategy, 1)
    with pytest.raises(UserError, match=reason):
        join_ranks(SimpleNamespace(strategy=strategy), "fit")


class TwoRanks(SingleProcess):
    """The other rank has gradients of one; it can only add what is on this rank's device."""

    world_size = 2

    def any(self, flag):
        return True

    def sum(self, values):
        assert values.device == card(0)
        return values + torch.ones_like(values)


def test_gradients_on_several_cards_are_summed_at_once_and_go_back(monkeypatch):
    with virtual_cards(monkeypatch) as cards:
        parameters = [nn.Parameter(torch.zeros(2, 3, device=card(number))) for number in (0, 1, 2)]
        for number, parameter in enumerate(parameters):
            cards.put(parameter, number)
        parameters[0].grad, parameters[2].grad = torch.ones(2, 3), torch.full((2, 3), 2.0, device=card(2))
        assert sum_gradients(parameters, TwoRanks())
        assert [parameter.grad.device for parameter in parameters] == [card(0), card(1), card(2)]
        assert [float(parameter.grad.mean()) for parameter in parameters] == [2, 1, 3]


def test_on_the_command_line_a_number_of_devices_counts_replicas(eight_gpus, monkeypatch, tmp_path):
    """What Lightning's Trainer would be made with."""
    seen = {}

    def no_trainer(self, config, callbacks):
        seen.update(config)
        raise UserError("no further")

    monkeypatch.setattr(LightningCLI, "_instantiate_trainer", no_trainer)
    settings = {"model.policy.devices_per_replica": 3, "trainer.devices": 2, "trainer.default_root_dir": tmp_path}
    words = [f"--{name}={value}" for name, value in settings.items()]
    assert main(["fit", "--config", str(QUICKSTART), "--trainer.accelerator=gpu", *words]) == 2
    assert seen["devices"] == [0, 3]
