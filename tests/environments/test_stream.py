from __future__ import annotations

from collections import Counter

import pytest

from rl_lightning.environments.held_out import held_out_share
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.stream import (
    ATTEMPTS,
    STRIDE,
    PromptStream,
    eval_problems,
    held_out_hashes,
    item_seed,
)
from rl_lightning.types import UserError

ONE_DIGIT = {"chain_sum": TaskSpec(config={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})}


class Words:
    """A template whose tokens are the question's words."""

    def token_ids(self, question: str, task: str = "") -> tuple[int, ...]:
        return tuple(range(len(question.split())))


def stream(datasets, seed=0, **kwargs):
    return PromptStream(EnvironmentMixture(datasets), Words(), seed, **kwargs)


def test_problem_k_is_a_pure_function_of_seed_and_k(datasets):
    forwards, backwards = stream(datasets), stream(datasets)
    a = [forwards[k].problem for k in range(40)]
    b = [backwards[k].problem for k in reversed(range(40))][::-1]
    assert a == b
    assert [p.index for p in a] == list(range(40))
    assert a != [stream(datasets, seed=1)[k].problem for k in range(40)]


def test_tasks_come_by_weight():
    specs = {"chain_sum": TaskSpec(3.0), "products": TaskSpec(1.0)}
    counts = Counter(stream(specs)[k].problem.task for k in range(2000))
    assert abs(counts["chain_sum"] / 2000 - 0.75) < 0.04  # four standard errors


def test_item_seeds_never_repeat_and_uses_never_meet():
    slots = [0, 1, 2, 1000, STRIDE - 1]
    for split in ("train", "sft", "eval"):
        seeds = [item_seed(split, 7, slot, attempt) for slot in slots for attempt in range(ATTEMPTS)]
        assert len(set(seeds)) == len(seeds)
    ranges = {"train": (0, 2**30), "sft": (2**30, 2**31), "eval": (2**31, 2**31 + 2**30)}
    for split, (low, high) in ranges.items():
        assert all(low <= item_seed(split, seed, slot, 63) < high for seed in range(50) for slot in slots)


def test_no_training_prompt_is_an_evaluation_problem():
    """One-digit sums: 2 terms, so a few hundred questions, most of which evaluation would meet by chance."""
    mixture = EnvironmentMixture(ONE_DIGIT)
    evaluation = eval_problems(mixture, seed=0, per_task=60)
    questions = {p.question for p in evaluation}
    assert len(questions) == 60
    training = stream(ONE_DIGIT, held_out=held_out_hashes(evaluation))
    prompts = [training[k] for k in range(500)]
    assert not questions & {p.problem.question for p in prompts}
    assert sum(p.skipped["held_out"] for p in prompts) > 50


def test_the_share_held_out_is_reported_and_nothing_left_is_refused():
    mixture = EnvironmentMixture(ONE_DIGIT)
    some = held_out_hashes(eval_problems(mixture, 0, 60))
    assert 0.1 < held_out_share(mixture, 0, some, seconds=60)["chain_sum"] < 0.9
    all_of_them = held_out_hashes(eval_problems(mixture, 0, 2000))
    assert held_out_share(mixture, 0, all_of_them, seconds=60)["chain_sum"] == 1
    with pytest.raises(UserError, match="nothing left to train on"):
        stream(ONE_DIGIT, held_out=all_of_them)[0]


def test_evaluation_problems_are_the_same_every_time_and_a_prefix_of_more(datasets):
    mixture = EnvironmentMixture({"chain_sum": datasets["chain_sum"]})
    assert eval_problems(mixture, 0, 10) == eval_problems(mixture, 0, 20)[:10]
    assert eval_problems(mixture, 0, 10) != eval_problems(mixture, 1, 10)


def test_long_prompts_are_skipped_and_counted():
    specs = {"chain_sum": TaskSpec(config={"min_terms": 2, "max_terms": 6})}
    prompts = [stream(specs, max_prompt_tokens=15)[k] for k in range(50)]
    assert max(len(p.token_ids) for p in prompts) <= 15
    assert sum(p.skipped["too_long"] for p in prompts) > 10
    with pytest.raises(UserError, match="64 are longer than max_prompt_tokens"):
        stream(specs, max_prompt_tokens=3)[0]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_weights_must_be_positive(weight):
    with pytest.raises(UserError, match="datasets.chain_sum.weight"):
        EnvironmentMixture({"chain_sum": TaskSpec(weight)})


def test_an_empty_mixture_is_refused():
    with pytest.raises(UserError, match="datasets: empty"):
        EnvironmentMixture({})
