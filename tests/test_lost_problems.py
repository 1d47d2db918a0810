"""A problem whose process is killed, or that takes too long."""

from __future__ import annotations

import os
import signal
import time

from rl_lightning.environments.mixture import EnvironmentMixture
from tests.environments.test_stream import Words
from tests.runs import SUMS


def test_a_problem_whose_process_is_killed_from_outside_is_made_again():
    from rl_lightning.environments.problem_workers import ProblemWorkers

    plain = EnvironmentMixture(SUMS)
    workers = ProblemWorkers(Mortal(SUMS), 1, seconds=10)
    (pid,) = {workers._pool.call("pid", seconds=10).result()}
    workers.begin("chain_sum", 0, 5)
    os.kill(pid, signal.SIGKILL)
    assert workers("chain_sum", 0, 5) == plain.problem("chain_sum", 0, 5)
    workers.close()


class Mortal(EnvironmentMixture):
    """Says which process it is in, and takes its time."""

    def pid(self):
        return os.getpid()

    def problem(self, *args):
        time.sleep(0.5)
        return super().problem(*args)


def test_a_problem_that_takes_too_long_is_replaced_the_same_every_time(monkeypatch):
    from rl_lightning.environments.problem_workers import ProblemWorkers, prompts_from
    from rl_lightning.environments.stream import PromptStream

    mixture = Slow(SUMS)
    workers = ProblemWorkers(mixture, 1, seconds=3)
    stream = PromptStream(mixture, Words(), 0, problem=workers)
    prompts = prompts_from(stream, 0, ahead=3)
    got = [next(prompts) for _ in range(4)]
    prompts.close()
    workers.close()
    plain = PromptStream(EnvironmentMixture(SUMS), Words(), 0)
    assert [p.skipped["too_slow"] for p in got] == [0, 1, 0, 0]
    assert [p.problem for p in got[:1] + got[2:]] == [plain[k].problem for k in (0, 2, 3)]
    assert got[1].problem == plain.mixture.problem(*plain.candidate(1, attempt=1))


class Slow(EnvironmentMixture):
    """Hangs on the first candidate of slot 1."""

    def problem(self, task, item_seed, index, level=None):
        from rl_lightning.environments.stream import item_seed as seed_of

        if item_seed == seed_of("train", 0, 1, 0):
            while True:
                pass
        return super().problem(task, item_seed, index, level)
