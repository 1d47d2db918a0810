"""The decode loop against transformers' own generation and against the plain forward pass."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rl_lightning.policy import cut
from rl_lightning.policy.rollout_network import ThroughTransformers
from rl_lightning.rollout import Sampling, decode, sample_groups
from rl_lightning.rollout.steps import Eager, Graphs
from rl_lightning.types import PromptBatch

SAMPLING = Sampling(num_generations=4, max_new_tokens=24)


def assert_same(ours, theirs):
    assert torch.equal(ours.completion_ids, theirs.completion_ids)
    assert torch.equal(ours.mask, theirs.mask)
    assert torch.equal(ours.finished, theirs.finished)
    assert torch.allclose(ours.sampling_logps, theirs.sampling_logps, atol=1e-5)
    assert ours.texts == theirs.texts


def roll(policy, batch, sampling=SAMPLING, seed=0, end=None, launch=None, prompts_at_once=None):
    generator = seed if seed is None or isinstance(seed, torch.Tensor) else torch.Generator().manual_seed(seed)
    end = policy.end_token_ids if end is None else end
    with policy.sampling() as model:
        return sample_groups(
            model,
            batch,
            sampling,
            end,
            policy.decode_text,
            generator,
            policy.pad_token_id,
            launch=launch,
            prompts_at_once=prompts_at_once,
        )


def test_greedy_decoding_equals_generate(policy, batch):
    """Prompt by prompt, without padding, by transformers' own code."""
    rollout = roll(policy, batch, seed=None)
    for n, length in enumerate(batch.prompt_lengths.tolist()):
        prompt = batch.prompt_ids[n : n + 1, :length]
        with torch.no_grad():
            expected = policy.model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False
            )[0, length:]
        assert rollout.completion_ids[n][rollout.mask[n]].tolist() == expected.tolist()


def test_sampling_log_probs_are_those_of_the_plain_forward_pass(policy, batch):
    sampling = replace(SAMPLING, temperature=0.7)
    rollout = roll(policy, batch, sampling)
    for micro in cut(rollout, torch.arange(24), 10_000):
        logps, _ = policy.log_probs(micro, temperature=0.7)
        assert torch.allclose(logps, rollout.sampling_logps[micro.row_of, micro.column_of], atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 7, 24])
def test_a_rollout_does_not_depend_on_how_many_rows_decode_at_once(policy, batch, rows):
    assert_same(roll(policy, batch, replace(SAMPLING, max_rollout_rows=rows)), roll(policy, batch))


@pytest.mark.parametrize(("prompts", "rows"), [(1, 24), (2, 3), (4, 7), (5, 1)])
@pytest.mark.parametrize("seed", [0, None])
def test_a_rollout_does_not_depend_on_how_many_prompts_are_kept(policy, batch, prompts, rows, seed):
    sampling = replace(SAMPLING, max_rollout_rows=rows)
    assert_same(roll(policy, batch, sampling, seed, prompts_at_once=prompts), roll(policy, batch, seed=seed))


def test_draws_may_be_given_in_place_of_a_generator(policy, batch):
    draws = torch.rand(24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_same(roll(policy, batch, seed=draws), roll(policy, batch))


def test_a_prompts_completions_do_not_depend_on_the_other_prompts(policy, batch):
    """Greedy, so that the random numbers are no matter: what is tested is padding and the cache."""
    alone = replace(
        batch, problems=batch.problems[2:3], prompt_ids=batch.prompt_ids[2:3], prompt_lengths=batch.prompt_lengths[2:3]
    )
    assert roll(policy, alone, seed=None).texts[0] == roll(policy, batch, seed=None).texts[2]


def test_rows_end_at_any_of_the_end_tokens_and_not_before(policy, batch):
    digits = torch.tensor(policy.tokenizer.convert_tokens_to_ids(["1", "2", "3"]))
    end = torch.cat([policy.end_token_ids, digits])
    rollout = roll(policy, batch, end=end)
    is_end = torch.isin(rollout.completion_ids, end) & rollout.mask
    last = rollout.lengths - 1
    assert rollout.finished.any()
    assert torch.equal(is_end.sum(dim=1), rollout.finished.long())
    assert is_end[torch.arange(24), last][rollout.finished].all()
    assert (rollout.lengths[~rollout.finished] == SAMPLING.max_new_tokens).all()
    assert not any(
        text.endswith(("1", "2", "3")) for text, done in zip(rollout.texts, rollout.finished, strict=True) if done
    )


def test_the_same_seed_samples_the_same_and_evaluation_draws_nothing(policy, batch):
    first, again, other = roll(policy, batch), roll(policy, batch), roll(policy, batch, seed=1)
    assert torch.equal(first.completion_ids, again.completion_ids)
    assert first.texts != other.texts
    state = torch.get_rng_state()
    roll(policy, batch, seed=None)
    assert torch.equal(state, torch.get_rng_state())


def test_the_generator_advances_by_the_same_amount_whatever_is_sampled(policy, batch):
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    torch.rand((24, SAMPLING.max_new_tokens), generator=generators[0], dtype=torch.float64)
    with policy.sampling() as model:
        sample_groups(model, batch, SAMPLING, policy.end_token_ids, policy.decode_text, generators[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_group_members_differ(policy, batch):
    rollout = roll(policy, batch)
    assert any(len(set(rollout.texts[i : i + 4])) > 1 for i in range(0, 24, 4))


def test_the_model_is_left_as_it_was(policy, batch):
    before = copy.deepcopy({k: v for k, v in policy.state_dict().items() if "lora" in k})
    roll(policy, batch)
    assert policy.model.training
    assert all(torch.equal(v, policy.state_dict()[k]) for k, v in before.items())


class Rounded(Graphs):
    """A CUDA graph's twin on a CPU: the same sizes and looks, and what would be captured is called."""

    sizes: ClassVar[list[tuple[int, int]]] = []
    recorder = staticmethod(lambda: lambda step: step)

    def run(self, slots, span):
        self.sizes.append(self._rounded(slots, span))
        super().run(slots, span)


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
        graphs = Rounded(lambda slots, span: None, 8, length)
        spans = {graphs._rounded(8, span)[1] for span in range(1, length + 1)}
        assert all(span % 8 == 0 for span in spans)
        assert len(spans) <= 4
        assert max(spans) == length


@pytest.mark.parametrize("rows", [5, 8, 24])
def test_rounded_sizes_and_rare_looks_change_nothing(policy, batch, rows):
    sampling, Rounded.sizes[:] = replace(SAMPLING, max_rollout_rows=rows), []
    assert_same(roll(policy, batch, sampling, launch=Rounded), roll(policy, batch))
    assert len(set(Rounded.sizes)) <= 3 * 4
    assert all(slots <= rows and (rows % slots) == 0 for slots, _ in Rounded.sizes)


def test_slots_that_idle_while_others_decode_do_no_harm_after_a_long_prompt(policy):
    """They count from 0 less the length of a prompt that is longer than all that is sampled."""
    ids = torch.randint(5, 100, (4, 60), generator=torch.Generator().manual_seed(0))
    batch = PromptBatch((None,) * 4, ids, torch.full((4,), 60), 0)
    sampling, end = Sampling(2, 20), torch.arange(0, 119, 8)
    rollout = roll(policy, batch, sampling, end=end, launch=Rounded)
    assert rollout.lengths.min() + 8 < rollout.lengths.max()  # some did idle
    assert_same(rollout, roll(policy, batch, sampling, end=end))


def test_a_step_asks_nothing_of_the_host(policy, batch, monkeypatch):
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

    for network in (policy.rollout_network, ThroughTransformers(policy.model, policy.autocast())):
        monkeypatch.setattr(policy, "rollout_network", network)
        with monkeypatch.context() as patch:
            patch.setattr(
                "transformers.masking_utils.is_tracing", lambda *_: True
            )  # as it says while a graph is captured
            roll(policy, batch, launch=Listened)
        filtered = replace(SAMPLING, top_p=0.9, top_k=5, min_p=0.1, temperature=0.7)
        roll(policy, batch, filtered, launch=Listened)
        roll(policy, batch, seed=None, launch=Listened)
    assert not asked


def test_a_greedy_rollout_by_graphs_twin(policy, batch):
    assert_same(roll(policy, batch, seed=None, launch=Rounded), roll(policy, batch, seed=None))


def test_a_slot_is_filled_again_as_soon_as_its_row_ends(policy, batch):
    """24 rows of very unequal length in 6 slots: as many steps as the fullest slot needs, not as four longest rows."""

    class Counting(Eager):
        steps: ClassVar[int] = 0

        def __init__(self, step, slots, length):
            def run(slots, span):
                Counting.steps += 1
                step(slots, span)

            self.run = run

    rollout = roll(policy, batch, replace(SAMPLING, max_rollout_rows=6), launch=Counting)
    lengths = rollout.lengths
    assert lengths.max() >= 2 * lengths.min()
    assert Counting.steps <= lengths.sum() / 6 + lengths.max()
    assert Counting.steps < sum(int(part.max()) for part in lengths.split(6))


@pytest.mark.parametrize("rows", [3, 24])
def test_every_text_is_told_once_and_before_the_end_where_rows_end_at_different_times(policy, batch, rows):
    told = []
    with policy.sampling() as model:
        rollout = sample_groups(
            model,
            batch,
            replace(SAMPLING, max_rollout_rows=rows),
            policy.end_token_ids,
            policy.decode_text,
            torch.Generator().manual_seed(0),
            policy.pad_token_id,
            lambda row, text: told.append((row, text)),
        )
    assert sorted(told) == list(enumerate(rollout.texts))
    if rows == 24:
        assert [row for row, _ in told] != list(range(24))  # in the order of their ends


def test_nothing_of_the_cache_is_left_when_a_rollout_ends(policy, batch, monkeypatch):
    """Not even for the garbage collector: the update needs the memory now."""
    alive = weakref.WeakSet()

    class Watched(decode.SlotCache):
        def __init__(self, *args):
            super().__init__(*args)
            alive.update((self, self.keys, self.values))

    monkeypatch.setattr(decode, "SlotCache", Watched)
    gc.disable()
    try:
        roll(policy, batch, launch=Rounded)
        assert not alive
    finally:
        gc.enable()
