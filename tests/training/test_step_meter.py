"""Seconds and sums of a step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rl_lightning.training.metrics import StepMeter, waiting


def test_two_goes_of_sampling_are_timed_together(monkeypatch):
    times = iter([0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr("rl_lightning.training.metrics.time", SimpleNamespace(perf_counter=lambda: next(times)))
    meter = StepMeter()
    for _ in range(2):
        with meter.time("sample"):
            pass
    assert meter.seconds == {"sample": 3.0}


def test_the_slowest_rank_does_not_wait():
    spent = [{"gather": 4.0, "sum": 0.5}, {"gather": 1.0, "sum": 0.5}]
    found = waiting(spent, step=10.0)
    assert found["time/ranks"] == 2
    assert found["time/all_reduce"] == 0.5
    assert found["time/ranks_waiting"] == pytest.approx(0.15), "the first waits 3 of 10 seconds, the second none"
    assert found["time/slowest_rank"] == pytest.approx(8.5 / 7), "the second works 8.5 seconds, the first 5.5"


def test_the_seconds_of_a_step_are_those_of_its_slowest_rank():
    class Two:
        rank, world_size, seconds = 0, 2, {"sum": 5.0}

        def gather(self, value):
            return [value, ({"sample": 4.0, "train": 1.0}, {"sum": 0.25})]

    two = Two()
    meter = StepMeter(two)
    two.seconds = {"sum": 6.0}
    meter.seconds = {"sample": 3.0, "train": 2.0}
    assert meter.finish() == {"sample": 4.0, "train": 2.0}
    meter.add_all(learning_rate=1.0, updates=1)
    metrics = meter.metrics(sampled_tokens=80)
    assert metrics["time/sampled_tokens_per_second"] == 20, "of all ranks, by the slowest"
    assert metrics["time/all_reduce"] == 0.25
    assert "time/ranks" not in StepMeter().finish()
