"""Seconds and sums of a step."""

from __future__ import annotations

from types import SimpleNamespace

from rl_lightning.training.metrics import StepMeter


def test_two_goes_of_sampling_are_timed_together(monkeypatch):
    times = iter([0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr("rl_lightning.training.metrics.time", SimpleNamespace(perf_counter=lambda: next(times)))
    meter = StepMeter()
    for _ in range(2):
        with meter.time("sample"):
            pass
    assert meter.seconds == {"sample": 3.0}
