"""A collective of two ranks, each a process of its own: the number of ranks changes results by rounding only."""

from __future__ import annotations

import multiprocessing
import pickle
from multiprocessing.connection import Connection

import pytest
import torch

import rl_lightning.module
from rl_lightning.objective import Objective
from rl_lightning.rollout import Sampling
from tests.extension_points.training import adapters, data, fit, module


class TwoRanks:
    """Two processes at the ends of a pipe."""

    world_size = 2
    seconds = {}  # noqa: RUF012

    def __init__(self, rank: int, other: Connection) -> None:
        self.rank, self._other = rank, other

    def gather(self, value):
        if self.rank == 0:  # in turn, for a pipe holds less than a step's rollouts
            self._other.send_bytes(pickle.dumps(value))
            return [value, pickle.loads(self._other.recv_bytes())]
        theirs = pickle.loads(self._other.recv_bytes())
        self._other.send_bytes(pickle.dumps(value))
        return [theirs, value]

    def sum(self, values):
        first, second = self.gather(values)
        return first + second

    def any(self, flag):
        return any(self.gather(flag))

    def broadcast(self, make):
        return self.gather(make() if self.rank == 0 else None)[0]


def train(root, collective=None, **settings):
    """Two steps; what the run has come to, as plain data."""
    torch.set_num_threads(1)
    mine = module(**settings)
    if collective is not None:
        mine.collective = collective
    source = data(prompts=4)
    forwarded, pack = [], rl_lightning.module.pack

    def counted(rollout, rows, budget):
        forwarded.append(int(rollout.lengths[rows].sum()))
        return pack(rollout, rows, budget)

    rl_lightning.module.pack = counted
    try:
        records = fit(root, mine, source, max_steps=2 * mine.objective.num_iterations)
    finally:
        rl_lightning.module.pack = pack
    return {
        "texts": [record.rollouts.rollout.texts for record in records],
        "questions": [[p.question for p in record.rollouts.prompts.problems] for record in records],
        "forwarded": forwarded,
        "adapters": adapters(mine),
        "metrics": {k: v for k, v in mine.metrics.items() if not k.startswith(("time/", "memory/"))},
        "cursor": source.cursor,
        "accuracy": source.record.state(),
    }


SETTINGS = {
    "dapo": {},
    "batch scale, two updates, KL": {
        "objective": Objective(scale_advantages="batch", baseline="batch", num_iterations=2, beta=0.1)
    },
    "tokens of high entropy, dynamic sampling": {
        "objective": Objective(top_entropy=0.5),
        "sampling": Sampling(4, 12, max_resample=2),
    },
}


def rank(number: int, root, pipe: Connection, report: Connection) -> None:
    """All settings, one after another: a process of its own takes seconds to start."""
    try:
        found = {name: train(root / str(number), TwoRanks(number, pipe), **each) for name, each in SETTINGS.items()}
        report.send_bytes(pickle.dumps(found))
    except BaseException as error:
        report.send_bytes(pickle.dumps(error))
        raise


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two ranks has come to, by the settings."""
    root, context = tmp_path_factory.mktemp("ranks"), multiprocessing.get_context("spawn")
    ends, reports = context.Pipe(), [context.Pipe() for _ in range(2)]
    ranks = [context.Process(target=rank, args=(n, root, ends[n], reports[n][1])) for n in range(2)]
    for process in ranks:
        process.start()
    try:
        assert all(report.poll(300) for report, _ in reports), "a rank does not end"
        found = [pickle.loads(report.recv_bytes()) for report, _ in reports]
    finally:
        for process in ranks:
            process.join(10)
            process.kill()
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_two_ranks_train_what_one_does(both, tmp_path, name):
    threads = torch.get_num_threads()
    try:
        alone = train(tmp_path, **SETTINGS[name])
    finally:
        torch.set_num_threads(threads)
    first, second = (found[name] for found in both)
    for ours in (first, second):  # the same completions, prompts, place in the stream and memory of success
        for key in ("texts", "questions", "cursor", "accuracy"):
            assert ours[key] == alone[key], key
        for a, b in zip(ours["adapters"], alone["adapters"], strict=True):
            assert (a - b).norm() <= 1e-4 * max(float(b.norm()), 1e-3)
        assert ours["metrics"] == pytest.approx(alone["metrics"], rel=1e-4, abs=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(first["adapters"], second["adapters"], strict=True))
    forwarded = [first["forwarded"], second["forwarded"], alone["forwarded"]]
    assert all(a + b == whole and a and b for a, b, whole in zip(*forwarded, strict=True))
