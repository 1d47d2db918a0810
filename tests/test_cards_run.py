"""Whole runs of a model that is laid over several virtual cards: to the last bit those of one card, and resumed on others."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from rl_lightning.checkpointing.checkpoints import resolve_checkpoint
from rl_lightning.objective import Objective
from rl_lightning.policy import PolicyConfig
from rl_lightning.training import ranks
from tests.runs import run, same
from tests.virtual_cards import card, virtual_cards

STEPS = 4
SETTINGS = {"objective": Objective(beta=0.1), "max_grad_norm": 0.01, "token_budget": 160, "weight_decay": 0.1}


@contextmanager
def machine_with_cards(monkeypatch):
    with virtual_cards(monkeypatch) as cards, monkeypatch.context() as patch:
        patch.setattr(ranks, "replica_devices", lambda root, count: [card(number) for number in range(count)])
        yield cards


def policy(cards: int, quantization: str) -> PolicyConfig:
    return PolicyConfig("tiny", quantization, devices_per_replica=cards, gradient_checkpointing="off")


@pytest.fixture(scope="module", params=["nf4", "none"])
def on_one(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    run(root, STEPS, policy=policy(1, request.param), save_steps=1, evaluate=False, **SETTINGS)
    return request.param, root


def resumed(root, steps: int, cards: int, quantization: str):
    last = resolve_checkpoint("last", root) if any(root.glob("checkpoint-*")) else None
    _, module, _ = run(
        root, steps, last and str(last), policy=policy(cards, quantization), save_steps=1, evaluate=False, **SETTINGS
    )
    return module


def test_a_run_on_two_cards_that_is_resumed_on_three_and_on_one_is_that_of_one(on_one, tmp_path, monkeypatch):
    quantization, expected = on_one
    with machine_with_cards(monkeypatch) as cards:
        for step, count in ((2, 2), (3, 3)):
            module = resumed(tmp_path, step, count, quantization)
            assert len(module.plan.cards) == count
            assert {cards.of(parameter) for parameter in module.policy.parameters()} == set(range(count))
    resumed(tmp_path, STEPS, 1, quantization)
    same(tmp_path, expected, STEPS)
