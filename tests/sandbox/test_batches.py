"""Many short calls in one message to a worker: the time limit is that of each."""

from __future__ import annotations

import os
import time

import pytest

from rl_lightning.sandbox import Batches, SandboxPool


class Served:
    """What an item says is done, and the process that did it is named."""

    def process(self, items):
        return [self.one(*item) for item in items]

    def one(self, what, number):
        if what == "sleep":
            time.sleep(0.15)
        if what == "hang":
            time.sleep(60)
        if what == "die":
            os._exit(3)
        return os.getpid()


@pytest.fixture
def batches():
    pool = SandboxPool(Served(), workers=1)
    yield Batches(pool, "process", seconds=0.5)
    pool.close()


def test_a_message_of_honest_items_that_takes_longer_than_one_may_loses_no_worker(batches):
    """All of the ten together take three times the limit."""
    batches.send([("quick", 0)])
    ((_, process),) = batches.received()
    slow = [("sleep", number) for number in range(10)]
    batches.send(slow)
    assert dict(batches.received()) == dict.fromkeys(slow, process)


def test_of_a_lost_message_only_what_lost_it_has_no_outcome(batches):
    items = [("quick", 0), ("hang", 1), ("sleep", 2), ("die", 3), ("quick", 4)]
    batches.send(items)
    found = dict(batches.received())
    assert set(found) == set(items)
    assert {item for item, outcome in found.items() if not isinstance(outcome, int)} == {items[1], items[3]}
    assert isinstance(found["hang", 1], TimeoutError)
    assert not isinstance(found["die", 3], TimeoutError)


def test_messages_may_be_left_on_their_way(batches):
    for number in range(4):
        batches.send([("quick", number)])
    first = list(batches.received(ahead=3))
    assert [item for item, _ in first] == [("quick", 0)]
    assert {number for (_, number), _ in batches.received()} == {1, 2, 3}
