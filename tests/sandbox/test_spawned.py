"""Where processes must not be forked, workers are new interpreters, and do the same."""

from __future__ import annotations

import multiprocessing.forkserver

import pytest

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.sandbox import WORKER_FAILURES, SandboxPool, pool
from tests.sandbox.test_pool import Served


@pytest.mark.parametrize(("platform", "method"), [("linux", "forkserver"), ("darwin", "spawn"), ("win32", "spawn")])
def test_which_system_forks(monkeypatch, platform, method):
    started = []
    monkeypatch.setattr(multiprocessing.forkserver, "ensure_running", lambda: started.append(platform))
    monkeypatch.setattr(pool.sys, "platform", platform)
    assert pool._context("rl_lightning.environments.mixture").get_start_method() == method
    assert bool(started) == (method == "forkserver")


def test_spawned_workers_score_are_locked_down_and_replaced(monkeypatch):
    monkeypatch.setattr(pool, "SPAWNS", ("linux", "darwin", "win32"))
    mixture = EnvironmentMixture({"chain_sum": TaskSpec()})
    problem = mixture.problem("chain_sum", 5, 0)
    workers = SandboxPool(mixture, workers=1)
    assert workers.call("verify_all", [(problem, problem.expected)], seconds=60).result() == [1.0]
    workers.close()
    served = SandboxPool(Served(), workers=1)
    first = served.call("pid", seconds=60).result()
    assert served.call("attempt", "write", "/tmp/x", seconds=60).result() == "PermissionError"
    with pytest.raises(WORKER_FAILURES):
        served.call("loop", seconds=0.5).result()
    assert served.call("pid", seconds=60).result() != first
    served.close()
