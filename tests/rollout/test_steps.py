"""Decode steps as CUDA graphs, by a twin of theirs that runs on a CPU."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rl_lightning.rollout import Sampling, decode_state
from rl_lightning.rollout.policy_decoder import ThroughTransformers, decoder_of
from rl_lightning.rollout.probe import probe
from rl_lightning.rollout.steps import Graphs
from rl_lightning.types import PromptBatch
from tests.rollout.conftest import SAMPLING, assert_same


class Rounded(Graphs):
    """A CUDA graph's twin on a CPU: the same sizes and sync interval, and what would be captured is called."""

    sizes: ClassVar[list[tuple[int, int]]] = []
    recorder = staticmethod(lambda: lambda step: step)

    def __init__(self, step, slots, length, *more):
        def run(slots, span):
            Rounded.sizes.append((slots, span))
            step(slots, span)

        super().__init__(run, slots, length, *more)


def test_a_size_is_run_as_it_is_before_it_is_captured():
    done = []

    def record(step):
        done.append("captured")
        return lambda: done.append("replayed") or step()

    class Recorded(Graphs):
        recorder = staticmethod(lambda: record)

    graphs = Recorded(lambda slots, span: done.append((slots, span)), 8, 40)
    for slots, span in ((8, 3), (7, 9), (8, 16), (4, 16), (3, 17), (3, 20)):
        graphs.run(slots, span)
    again = ["replayed", (8, 16)]
    assert done == [(8, 16), "captured", *again, *again, (4, 16), (4, 32), "captured", "replayed", (4, 32)]


def test_a_graph_reads_whole_eights_of_the_cache_and_no_more_than_there_is():
    for length in range(8, 2000, 8):
        graphs, read = Rounded(lambda slots, span: None, 8, length), set()
        for wanted in range(1, length + 1):
            Rounded.sizes.clear()
            graphs.run(8, wanted)
            ((_, span),) = Rounded.sizes
            assert span >= wanted
            read.add(span)
        assert all(span % 8 == 0 for span in read)
        assert len(read) <= 4
        assert max(read) == length


@pytest.mark.parametrize("rows", [5, 8, 24])
def test_rounded_sizes_and_a_rare_sync_change_nothing(sample, batch, rows):
    sampling = replace(SAMPLING, max_rollout_rows=rows)
    Rounded.sizes.clear()
    assert_same(sample(batch, sampling, launch=Rounded), sample(batch))
    assert len(set(Rounded.sizes)) <= 3 * 4
    assert all(slots <= rows and (rows % slots) == 0 for slots, _ in Rounded.sizes)


def test_slots_that_idle_while_others_decode_do_no_harm_after_a_long_prompt(sample):
    """They count from 0 less the length of a prompt that is longer than all that is sampled."""
    ids = torch.randint(5, 100, (4, 60), generator=torch.Generator().manual_seed(0))
    batch = PromptBatch((None,) * 4, ids, torch.full((4,), 60), 0)
    sampling, end = Sampling(2, 20), torch.arange(0, 119, 8)
    rollout = sample(batch, sampling, end=end, launch=Rounded)
    assert rollout.lengths.min() + 8 < rollout.lengths.max()  # some did idle
    assert_same(rollout, sample(batch, sampling, end=end))


def test_a_step_asks_nothing_of_the_host(policy, sample, batch, monkeypatch):
    """What a CUDA graph cannot hold: to read a value, or to make a tensor whose size depends on one."""
    asked = []

    class Listening(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in ("index", "index_put", "index_put_", "_index_put_impl_"):
                waits = any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in args[1])
            else:
                waits = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & set(func.tags)
            if waits or func.overloadpacket.__name__ == "isin":
                asked.append(str(func))
            return func(*args, **(kwargs or {}))

    class Listened(Rounded):
        recorder = staticmethod(lambda: listened)

    def listened(step):
        def run():
            with Listening():
                step()

        return run

    merged = decoder_of(policy, merged=True)
    merged.refresh()
    for decoder in (merged, ThroughTransformers(policy, probe(policy))):
        with monkeypatch.context() as patch:
            patch.setattr(
                "transformers.masking_utils.is_tracing", lambda *_: True
            )  # as it says while a graph is captured
            sample(batch, launch=Listened, decoder=decoder)
        filtered = replace(SAMPLING, top_p=0.9, top_k=5, min_p=0.1, temperature=0.7)
        sample(batch, filtered, launch=Listened, decoder=decoder)
        sample(batch, seed=None, launch=Listened, decoder=decoder)
    assert not asked


def test_a_greedy_rollout_by_graphs_twin(sample, batch):
    assert_same(sample(batch, seed=None, launch=Rounded), sample(batch, seed=None))


def test_nothing_of_the_cache_is_left_when_a_rollout_ends(sample, batch, monkeypatch):
    """Not even for the garbage collector: the update needs the memory now."""
    alive = weakref.WeakSet()

    class Watched(decode_state.SlotCache):
        def __init__(self, *args):
            super().__init__(*args)
            alive.update((self, *self.keys, *self.values))

    monkeypatch.setattr(decode_state, "SlotCache", Watched)
    gc.disable()
    try:
        sample(batch, launch=Rounded)
        assert not alive
    finally:
        gc.enable()
