"""The decode loop against transformers' own generation and against the plain forward pass."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from rl_lightning.policy import pack
from rl_lightning.rollout.policy_decoder import ThroughTransformers
from rl_lightning.rollout.probe import probe
from rl_lightning.rollout.steps import Eager
from tests.rollout.conftest import SAMPLING, assert_same, uniforms


def test_greedy_decoding_equals_generate(policy, sample, batch):
    """Prompt by prompt, without padding, by transformers' own code."""
    rollout = sample(batch, seed=None)
    for n, length in enumerate(batch.prompt_lengths.tolist()):
        prompt = batch.prompt_ids[n : n + 1, :length]
        with torch.no_grad():
            expected = policy.model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False
            )[0, length:]
        assert rollout.completion_ids[n][rollout.mask[n]].tolist() == expected.tolist()


def test_sampling_log_probs_are_those_of_the_plain_forward_pass(policy, sample, batch):
    sampling = replace(SAMPLING, temperature=0.7)
    rollout = sample(batch, sampling)
    for micro in pack(rollout, torch.arange(24), 10_000):
        logps, _ = policy.log_probs(micro, temperature=0.7)
        assert torch.allclose(logps, rollout.sampling_logps[micro.row_of, micro.column_of], atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 7, 24])
def test_a_rollout_does_not_depend_on_how_many_rows_decode_at_once(sample, batch, rows):
    assert_same(sample(batch, replace(SAMPLING, max_rollout_rows=rows)), sample(batch))


@pytest.mark.parametrize(("prompts", "rows"), [(1, 24), (2, 3), (4, 7), (5, 1)])
@pytest.mark.parametrize("seed", [0, None])
def test_a_rollout_does_not_depend_on_how_many_prompts_are_kept(sample, batch, prompts, rows, seed):
    sampling = replace(SAMPLING, max_rollout_rows=rows)
    assert_same(sample(batch, sampling, seed, prompts_at_once=prompts), sample(batch, seed=seed))


def test_a_row_depends_on_no_draws_but_its_own(sample, batch):
    first, draws = sample(batch), uniforms(0)
    draws[5] = uniforms(1)[5]
    second = sample(batch, draws=draws)
    texts = list(zip(first.texts, second.texts, strict=True))
    assert [row for row, (one, other) in enumerate(texts) if one != other] == [5]


def test_a_prompts_completions_do_not_depend_on_the_other_prompts(sample, batch):
    """Greedy, so that the random numbers are no matter: what is tested is padding and the cache."""
    alone = replace(
        batch, problems=batch.problems[2:3], prompt_ids=batch.prompt_ids[2:3], prompt_lengths=batch.prompt_lengths[2:3]
    )
    assert sample(alone, seed=None).texts[0] == sample(batch, seed=None).texts[2]


def test_rows_end_at_any_of_the_end_tokens_and_not_before(policy, sample, batch):
    digits = torch.tensor(policy.tokenizer.convert_tokens_to_ids(["1", "2", "3"]))
    end = torch.cat([policy.eos_token_ids, digits])
    rollout = sample(batch, end=end)
    is_end = torch.isin(rollout.completion_ids, end) & rollout.mask
    last = rollout.lengths - 1
    assert rollout.finished.any()
    assert torch.equal(is_end.sum(dim=1), rollout.finished.long())
    assert is_end[torch.arange(24), last][rollout.finished].all()
    assert (rollout.lengths[~rollout.finished] == SAMPLING.max_new_tokens).all()
    assert not any(
        text.endswith(("1", "2", "3")) for text, done in zip(rollout.texts, rollout.finished, strict=True) if done
    )


def test_the_same_draws_give_the_same_completions_and_no_random_state_is_touched(sample, batch):
    state = torch.get_rng_state()
    first, again, other = sample(batch), sample(batch), sample(batch, seed=1)
    assert torch.equal(first.completion_ids, again.completion_ids)
    assert first.texts != other.texts
    sample(batch, seed=None)
    assert torch.equal(state, torch.get_rng_state())


def test_group_members_differ(sample, batch):
    rollout = sample(batch)
    assert any(len(set(rollout.texts[i : i + 4])) > 1 for i in range(0, 24, 4))


@pytest.mark.parametrize("through_transformers", [False, True])
def test_the_model_is_left_as_it_was(policy, sample, batch, through_transformers):
    before = copy.deepcopy({k: v for k, v in policy.state_dict().items() if "lora" in k})
    sample(batch, **({"decoder": ThroughTransformers(policy, probe(policy))} if through_transformers else {}))
    assert policy.training
    assert all(torch.equal(v, policy.state_dict()[k]) for k, v in before.items())


def test_a_slot_is_filled_again_as_soon_as_its_row_ends(sample, batch):
    """24 rows of very unequal length in 6 slots: as many steps as the fullest slot needs, not as four longest rows."""

    class Counting(Eager):
        steps: ClassVar[int] = 0

        def __init__(self, step, *sizes):
            def run(slots, span):
                Counting.steps += 1
                step(slots, span)

            self.run = run

    rollout = sample(batch, replace(SAMPLING, max_rollout_rows=6), launch=Counting)
    lengths = rollout.lengths
    assert lengths.max() >= 2 * lengths.min()
    assert Counting.steps <= lengths.sum() / 6 + lengths.max()
    assert Counting.steps < sum(int(part.max()) for part in lengths.split(6))


@pytest.mark.parametrize("rows", [3, 24])
def test_every_text_is_told_once_and_before_the_end_where_rows_end_at_different_times(sample, batch, rows):
    told = []
    sampling = replace(SAMPLING, max_rollout_rows=rows)
    rollout = sample(batch, sampling, on_finished=lambda row, text: told.append((row, text)))
    assert sorted(told) == list(enumerate(rollout.texts))
    if rows == 24:
        assert [row for row, _ in told] != list(range(24))  # in the order of their ends
