"""A run that was stopped, by a signal, an error or a kill, goes on as if it had not been."""

from __future__ import annotations

import os
import random
import signal

import numpy as np
import pytest
import torch

from rl_lightning.checkpointing.checkpoints import checkpoints, resolve_checkpoint
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.scoring import Reward, WeightedReward
from rl_lightning.types import UserError
from tests.runs import LengthReward, run, same


class RandomReward(Reward):
    """Draws from every global generator there is."""

    def __call__(self, problem, completion, score):
        return random.random() + float(np.random.rand()) + float(torch.rand(()))


@pytest.mark.parametrize(
    "model",
    [
        {"objective": Objective(num_iterations=2)},
        {"objective": Objective(beta=0.05)},
        {"reward": RandomReward()},
        {"lr_schedule": "constant", "warmup_steps": 3, "weight_decay": 0.1},
        {"sampling": Sampling(4, 24, max_resample=3), "reward": WeightedReward(format=0.0)},
    ],
    ids=["two updates", "KL", "random reward", "warm-up", "dynamic sampling"],
)
def test_a_resumed_run_is_the_same_to_the_last_bit(tmp_path, model):
    _, module, data = run(tmp_path / "whole", 6, **model)
    assert (data.extra_cursor > 0) == (module.sampling.max_resample > 1)
    run(tmp_path / "halves", 4, **model)
    run(tmp_path / "halves", 6, ckpt_path=str(resolve_checkpoint("last", tmp_path / "halves")), **model)
    same(tmp_path / "halves", tmp_path / "whole", 6)


SLURM = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_step_and_the_run_goes_on_the_same(tmp_path, monkeypatch, number):
    """Sent in the middle of the third step's sampling. SIGUSR1 is for a job of SLURM, where Lightning would write a checkpoint of
    its own and put the job back into the queue."""
    from rl_lightning.callbacks import StopAtSignal

    if number == signal.SIGUSR1:
        for name, value in SLURM.items():
            monkeypatch.setenv(name, value)
    run(tmp_path / "whole", 5)
    calls, generate = 0, LocalEngine.generate

    def signalled(self, prompts, sampling, draws, on_finished=None):
        nonlocal calls
        calls += draws is not None  # evaluations are greedy
        if calls == 3:
            calls += 1
            os.kill(os.getpid(), number)
        return generate(self, prompts, sampling, draws, on_finished)

    before = signal.getsignal(number)
    monkeypatch.setattr(LocalEngine, "generate", signalled)
    stop = StopAtSignal()
    trainer, *_ = run(tmp_path / "halves", 5, callbacks=[stop])
    assert (trainer.global_step, stop.received) == (3, number)
    assert signal.getsignal(number) == before
    assert not list((tmp_path / "halves").glob("hpc_ckpt*"))
    assert [p.name for p in checkpoints(tmp_path / "halves")] == ["checkpoint-2", "checkpoint-3"]
    assert not (tmp_path / "halves" / "train_results.json").exists()  # which is for the end
    run(tmp_path / "halves", 5, ckpt_path=str(resolve_checkpoint("last", tmp_path / "halves")))
    same(tmp_path / "halves", tmp_path / "whole", 5)


def test_other_settings_are_refused_and_speed_may_change(tmp_path):
    run(tmp_path, 2, evaluate=False)
    last = str(resolve_checkpoint("last", tmp_path))
    for model, message in (
        ({"learning_rate": 5e-4}, r"learning_rate was 0.001 and is 0.0005"),
        ({"reward": RandomReward()}, r"reward.class_path was 'LengthReward' and is 'RandomReward'"),
        ({"objective": Objective(beta=0.1)}, r"objective.beta was 0.0 and is 0.1"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path, 3, ckpt_path=last, evaluate=False, **model)
    run(tmp_path, 3, ckpt_path=last, evaluate=True, token_budget=64)


def test_a_signal_in_the_last_step_lets_the_run_end(tmp_path, monkeypatch):
    from rl_lightning.callbacks import StopAtSignal

    score, calls = GRPOModule.score, 0

    def signalled(self, *args):
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return score(self, *args)

    monkeypatch.setattr(GRPOModule, "score", signalled)
    stop = StopAtSignal()
    run(tmp_path, 2, callbacks=[stop])
    assert stop.received is None
    assert (tmp_path / "train_results.json").exists()


def test_a_reward_that_keeps_count_resumes(tmp_path):
    class Counting(LengthReward):
        def __init__(self):
            self.seen = 0

        def __call__(self, *args):
            self.seen += 1
            return super().__call__(*args)

    run(tmp_path, 2, evaluate=False, reward=Counting())
    run(tmp_path, 3, ckpt_path=str(resolve_checkpoint("last", tmp_path)), evaluate=False, reward=Counting())


def test_an_end_that_fails_does_not_cost_the_steps(tmp_path, monkeypatch):
    """The last evaluation or its picture fails after the last step: its checkpoint is there all the same."""
    from rl_lightning.callbacks import FixedEval

    def broken(*args):
        raise OSError("no such thing")

    monkeypatch.setattr(FixedEval, "on_train_end", broken)
    with pytest.raises(OSError, match="no such thing"):
        run(tmp_path, 3)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]


def test_a_failure_in_the_middle_writes_no_checkpoint_of_its_own(tmp_path, monkeypatch):
    step_optimizer, steps = GRPOModule.step_optimizer, iter(range(9))

    def broken(self, rollouts):
        if next(steps) == 2:
            raise OSError("no such thing")
        step_optimizer(self, rollouts)

    monkeypatch.setattr(GRPOModule, "step_optimizer", broken)
    with pytest.raises(OSError, match="no such thing"):
        run(tmp_path, 3, evaluate=False)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-2"]


def test_a_run_stopped_before_its_first_step_goes_on(tmp_path, monkeypatch):
    """Ctrl-C while the evaluation at step 0 goes on leaves checkpoint-0, from which --ckpt_path last begins."""
    evaluate = GRPOModule.validation_step

    def stopped(self, *args):
        self.trainer.should_stop = self.interrupted = True  # as StopAtSignal does
        return evaluate(self, *args)

    monkeypatch.setattr(GRPOModule, "validation_step", stopped)
    run(tmp_path, 3)
    monkeypatch.undo()
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-0"]
    trainer, _, _ = run(tmp_path, 3, ckpt_path=str(resolve_checkpoint("last", tmp_path)))
    assert trainer.global_step == 3
    assert (tmp_path / "train_results.json").is_file()
