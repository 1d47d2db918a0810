"""A model whose logits are not finite: the completion ends there, and no other one notices."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.rollout import Sampling
from rl_lightning.rollout.policy_decoder import ThroughTransformers, decoder_of
from rl_lightning.rollout.probe import probe
from rl_lightning.rollout.sampling import choose
from rl_lightning.types import PromptBatch
from tests.rollout.graphs_twin import twin

NAN, INF = float("nan"), float("inf")
WRONG = {"nan": NAN, "inf": INF, "nothing": -INF}
FILTERS = {
    "plain": {},
    "hot": {"temperature": 0.5},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.7},
    "min_p": {"min_p": 0.25},
    "all": {"top_k": 3, "top_p": 0.6, "min_p": 0.1, "temperature": 2.0},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("vocabulary", [3, 513, 5_000])
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("filters", [*FILTERS, "greedy"])
def test_logits_that_are_no_distribution_give_a_token_of_the_vocabulary_and_no_log_prob(
    filters, wrong, vocabulary, dtype
):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, vocabulary, generator=generator).to(dtype)
    uniforms = torch.tensor([0.0, 0.3, 0.5, 0.9, 1 - 2**-53, 0.7], dtype=torch.float64)
    draws, sampling = (None, Sampling()) if filters == "greedy" else (uniforms, Sampling(**FILTERS[filters]))
    expected = choose(logits.clone(), sampling, draws, torch.empty(6, vocabulary))
    logits[1::2] = (
        WRONG[wrong] if wrong == "nothing" else logits[1::2].clone().index_fill_(1, torch.tensor([1]), WRONG[wrong])
    )
    tokens, logps = choose(logits, sampling, draws, torch.empty(6, vocabulary))
    assert ((tokens >= 0) & (tokens < vocabulary)).all()
    assert logps.isnan().tolist() == [False, True] * 3
    assert torch.equal(tokens[::2], expected[0][::2])
    assert torch.equal(logps[::2], expected[1][::2])


class BrokenAt:
    """A decoder whose keys and values are not finite at one token, and with them all that attends to it."""

    def __init__(self, decoder, token: int, value: float) -> None:
        self._decoder, self._token, self._value = decoder, token, value

    def __getattr__(self, name):
        return getattr(self._decoder, name)

    def __call__(self, ids, positions, attend):
        there = (ids == self._token)[:, None, :, None]

        def broken(layer, query, key, value, kind):
            return attend(
                layer, query, key.masked_fill(there, self._value), value.masked_fill(there, self._value), kind
            )

        return self._decoder(ids, positions, broken)


@pytest.fixture(scope="module")
def short(batch) -> PromptBatch:
    """The prompts of about the same length: a slot is filled up to the longest one's, and what is broken lies beyond."""
    few = [row for row, length in enumerate(batch.prompt_lengths.tolist()) if length <= 25]
    lengths = batch.prompt_lengths[few]
    return PromptBatch(
        tuple(batch.problems[row] for row in few), batch.prompt_ids[few, : int(lengths.max())], lengths, cursor=0
    )


@pytest.fixture(scope="module")
def token(sample, short) -> int:
    """One that is in no prompt, and in some of the completions, not only at their end."""
    inner = sample(short).completion_ids[:, :12]
    found = [t for t in inner.unique().tolist() if t > 3 and not (short.prompt_ids == t).any()]
    return max(found, key=lambda t: -abs(int((inner == t).any(dim=1).sum()) - 6))


def decoder(policy, kind):
    if kind == "transformers":
        return ThroughTransformers(policy, probe(policy))
    made = decoder_of(policy, merged=kind == "merged")
    made.refresh()
    return made


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("rows", [2, 5, "auto"])
@pytest.mark.parametrize("kind", ["merged", "unmerged", "transformers", "graphs"])
def test_a_row_ends_where_it_breaks_and_the_next_in_its_slot_is_as_ever(
    policy, sample, short, token, kind, rows, value
):
    made = decoder(policy, "merged" if kind == "graphs" else kind)
    sampling = Sampling(4, 24, max_rollout_rows=rows)
    launch = twin() if kind == "graphs" else None
    plain, told = sample(short, sampling, decoder=made), {}
    ours = sample(short, sampling, decoder=BrokenAt(made, token, value), launch=launch, on_finished=told.__setitem__)
    broke = 0
    for row, (length, ids) in enumerate(zip(plain.lengths.tolist(), plain.completion_ids, strict=True)):
        places = (ids[: length - 1] == token).nonzero().flatten().tolist()
        end = places[0] + 2 if places else length
        assert int(ours.lengths[row]) == end
        assert torch.equal(ours.completion_ids[row, : end - bool(places)], ids[: end - bool(places)])
        assert bool(ours.not_finite[row]) == bool(places)
        assert bool(ours.finished[row]) == (bool(plain.finished[row]) and not places)
        assert told[row] == ours.texts[row]
        assert ours.texts[row] == (policy.decode_text(ids[: end - 1]) if places else plain.texts[row])
        broke += bool(places)
    assert 3 <= broke <= 12
    assert not (ours.truncated & ours.not_finite).any()
    assert ours.finite_groups.tolist() == (~ours.not_finite.view(-1, 4).any(dim=1)).tolist()


@pytest.mark.parametrize("prompts_at_once", [1, 2, 6])
@pytest.mark.parametrize("place", ["first", "after what others begin with", "near the end"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_prompt_that_breaks_has_only_completions_of_nothing_and_the_others_are_as_ever(
    policy, sample, batch, place, value, prompts_at_once
):
    """The first prompt of a pack, whose first token fills the rows of the others, and which computes what they begin with."""
    ids = batch.prompt_ids.clone()
    ids[:, :8] = ids[0, :8]
    unique = next(token for token in range(4, 200) if not (ids == token).any())
    ids[0, {"first": 0, "after what others begin with": 8, "near the end": int(batch.prompt_lengths[0]) - 6}[place]] = (
        unique
    )
    batch = type(batch)(batch.problems, ids, batch.prompt_lengths, batch.cursor)
    plain = sample(batch)
    assert not (plain.completion_ids[4:] == unique).any()
    made = BrokenAt(decoder(policy, "merged"), unique, value)
    sampling = Sampling(4, 24, max_rollout_rows=4)
    ours = sample(batch, sampling, decoder=made, prompts_at_once=prompts_at_once)
    assert ours.not_finite.tolist() == [True] * 4 + [False] * 20
    assert ours.lengths[:4].tolist() == [1] * 4
    assert torch.equal(ours.lengths[4:], plain.lengths[4:])
    assert ours.texts[4:] == plain.texts[4:]
