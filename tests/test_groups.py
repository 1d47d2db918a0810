"""Which groups a step is made of: further prompts in place of those that teach nothing, and nothing of the others in the loss."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rl_lightning.data import ReasoningGymDataModule
from rl_lightning.groups import Groups, chosen
from rl_lightning.metrics import Meter
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import WeightedReward
from rl_lightning.types import Problem, PromptBatch, Rollout, Score, UserError

NOTHING = Score(0.0, 0.0, False, None)


def made(numbers: list[int], live: list[bool], width: int = 3) -> Groups:
    """Groups of two completions, of problems of these numbers; in a live one the first answer is right."""
    problems = tuple(Problem("sums", n, f"{n}?", {}) for n in numbers)
    count = len(numbers)
    ids = torch.tensor(numbers).repeat_interleave(2)[:, None].expand(-1, width)
    batch = PromptBatch(
        problems, ids[::2], torch.full((count,), width), cursor=max(numbers) + 1, skipped={"held_out": 1}
    )
    mask = torch.ones(2 * count, width, dtype=torch.bool)
    logps, done = -torch.ones(2 * count, width), torch.ones(2 * count, dtype=torch.bool)
    rollout = Rollout(batch.prompt_ids, batch.prompt_lengths, ids, mask, logps, done, ("x",) * 2 * count)
    parts = torch.zeros(count, 2, 2, dtype=torch.float64)
    parts[:, 0, 0] = torch.tensor(live).double()
    return Groups(batch, rollout, (NOTHING,) * 2 * count, parts, parts.sum(2), torch.ones(count, dtype=torch.bool))


class Asked(GRPOModule):
    """Whose policy's answers are made up: by the problem's number, which teach."""

    device = torch.device("cpu")

    def __init__(self, live: set[int], **sampling) -> None:
        super().__init__(sampling=Sampling(2, 8, **sampling))
        self.living, self.counts = live, []
        self._trainer = SimpleNamespace(datamodule=SimpleNamespace(further=self.further))

    trainer = property(lambda self: self._trainer)

    def further(self, count):
        first = 100 + sum(self.counts)
        self.counts.append(count)
        return made(list(range(first, first + count)), [False] * count).batch

    def answered(self, batch):
        numbers = [p.index for p in batch.problems]
        return made(numbers, [n in self.living for n in numbers], width=3 if numbers[0] < 100 else 5)


FIRST = made([0, 1, 2, 3], [False] * 4).batch


def test_one_time_the_work_is_plain_grpo():
    module = Asked({0}, max_resample=1)
    groups = module.collect(FIRST)
    assert not module.counts
    assert len(groups) == 4
    assert groups.kept.all()


def test_dead_groups_are_replaced_until_all_teach():
    module = Asked({1, 2, 101, 103}, max_resample=4)
    groups = module.collect(FIRST)
    # two of four teach, so of four further ones two are hoped for
    assert module.counts == [4]
    assert [p.index for p, kept in zip(groups.batch.problems, groups.kept, strict=True) if kept] == [1, 2, 101, 103]
    assert groups.batch.cursor == FIRST.cursor  # further prompts do not move the stream
    assert groups.batch.skipped == {"held_out": 2}


def test_the_work_is_limited_and_dead_groups_fill_up():
    module = Asked({2, 106}, max_resample=3)
    groups = module.collect(FIRST)
    assert module.counts == [4, 4]  # never more at once than the plan of memory is made for
    assert len(groups) == 12
    assert [p.index for p, kept in zip(groups.batch.problems, groups.kept, strict=True) if kept] == [0, 1, 2, 106]


def test_a_share_of_live_groups_is_enough():
    module = Asked({0, 1}, max_resample=4, live_share=0.5)
    assert len(module.collect(FIRST)) == 4
    module = Asked({0, 100}, max_resample=4, live_share=0.5)
    assert int(module.collect(FIRST).kept.sum()) == 4
    assert module.counts == [4]  # and not more, though two of the four kept are dead


def test_joined_rollouts_keep_every_row():
    groups = made([0, 1], [True, False], width=3) + made([7], [True], width=5)
    rollout = groups.rollout
    assert rollout.completion_ids.shape == rollout.mask.shape == rollout.sampling_logps.shape == (6, 5)
    assert rollout.completion_ids[:, :3].tolist() == [[n] * 3 for n in (0, 0, 1, 1, 7, 7)]
    assert rollout.lengths.tolist() == [3, 3, 3, 3, 5, 5]
    assert rollout.prompt_lengths.tolist() == [3, 3, 5]
    assert rollout.group_size == 2
    assert groups.rewards.tolist() == [[1, 0], [0, 0], [1, 0]]


def test_those_that_teach_come_first_and_of_equals_the_earlier():
    live = torch.tensor([False, True, False, True, True])
    assert chosen(live, 2).nonzero().flatten().tolist() == [1, 3]
    assert chosen(live, 4).nonzero().flatten().tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
def test_what_was_left_out_has_no_part_in_weights_and_advantages(scale, loss_type):
    """The step is that of the kept groups alone, to the last bit."""
    module = Asked(set())
    module.objective = Objective(loss_type=loss_type, scale_advantages=scale)
    kept, dropped = made([1, 2, 3], [True, False, True]), made([8, 9], [False, True], width=6)
    kept.parts[0, 1, 0], kept.parts[2, 0, 0] = 0.25, 0.5
    all_of_them = kept + dropped
    some = replace(all_of_them, kept=torch.tensor([True] * 3 + [False] * 2))
    advantages, weights = module.lessons(some)
    alone_advantages, alone_weights = module.lessons(kept)
    assert torch.equal(advantages[:3], alone_advantages)
    assert torch.equal(weights[:6, :3], alone_weights)
    assert not advantages[3:].any()
    assert not weights[6:].any()
    assert not weights[:, 3:].any()


@pytest.mark.parametrize(
    ("p", "k", "kept", "taken"),
    [
        (0.02, 4, 0.30, 0.31),
        (0.05, 4, 0.38, 0.39),
        (0.10, 4, 0.49, 0.51),
        (0.50, 4, 0.88, 0.91),
        (0.05, 8, 0.66, 0.67),
        (0.50, 8, 0.99, 1.00),
    ],
)
def test_a_group_given_up_early_saves_no_more_than_it_loses(p, k, kept, taken):
    """The table of docs/live_groups.md. Of a group with m of G right, sum (r - mean) (r - p) is m (G - m) / G."""
    size = 16

    def chance(n, m):
        return math.comb(n, m) * p**m * (1 - p) ** (n - m)

    found = sum(
        chance(k, a) * chance(size - k, b) * (a + b) * (size - a - b) / size
        for a in range(1, k)
        for b in range(size - k + 1)
    )
    gone_on = 1 - p**k - (1 - p) ** k
    assert found / (p * (1 - p) * (size - 1)) == pytest.approx(kept, abs=0.005)
    assert (k + (size - k) * gone_on) / size == pytest.approx(taken, abs=0.005)


def test_two_goes_of_sampling_are_timed_together(monkeypatch):
    times = iter([0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr("rl_lightning.metrics.time", SimpleNamespace(perf_counter=lambda: next(times)))
    meter = Meter()
    for _ in range(2):
        with meter.time("sample"):
            pass
    assert meter.seconds == {"sample": 3.0}


def test_a_baseline_by_which_every_group_teaches_has_no_dead_ones():
    with pytest.raises(UserError, match="max_resample"):
        GRPOModule(sampling=Sampling(max_resample=2), objective=Objective(baseline="batch", scale_advantages="batch"))


@pytest.mark.parametrize("workers", [0, 1])
def test_further_prompts_are_others_than_the_streams_and_the_same_again(datasets, workers):
    data = ReasoningGymDataModule(
        datasets, prompts_per_step=4, system_prompt="", num_workers=workers, eval_num_samples=2
    )
    data.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(policy_config=SimpleNamespace(model_name_or_path="tiny")), state=None
    )
    data.setup("fit")
    try:
        batches = iter(data.train_dataloader())
        streamed = [next(batches) for _ in range(2)]
        state = data.state_dict()
        further = [data.further(3), data.further(2)]
        assert data.state_dict()["further_cursor"] == 5
        data.load_state_dict(state)
        again = data.further(5)
        asked = [p.question for batch in further for p in batch.problems]
        assert [p.question for p in again.problems] == asked
        assert len({*asked, *(p.question for batch in streamed for p in batch.problems)}) == 5 + 8
        assert next(batches).cursor == 12  # the stream goes on where it was
    finally:
        data.teardown("fit")


def judged(reward, limit=8, **objective):
    """Parts of the rewards of four completions of 3 tokens, the first of each prompt right."""
    module, groups = Asked(set()), made([0, 1], [True, False])
    module.objective, module.reward, module.sampling = Objective(**objective), reward, Sampling(2, limit)
    module.scorer = lambda problems, texts: [Score(1.0, 1.0, True, "x"), NOTHING] * 2
    scores, parts = module.judge(groups.batch, groups.rollout)
    assert len(scores) == 4
    return module, parts


def test_a_reward_is_asked_for_its_sum_unless_its_parts_are_compared():
    class Short(WeightedReward):
        def __call__(self, problem, completion, score):
            return super().__call__(problem, completion, score) - 0.25 * len(completion)

    _, parts = judged(Short())
    assert parts.flatten().tolist() == pytest.approx([0.85, 0.0, -0.25, 0.0] * 2)
    module, parts = judged(WeightedReward(exact=2.0, partial=0.5), reward_aggregation="normalize_then_sum")
    assert parts.tolist() == [[[1.0, 1.0, 1.0, 0.0], [0.0] * 4]] * 2
    assert module.part_weights().tolist() == [2.0, 0.5, 0.1, 1.0]


def test_the_penalty_for_length_is_part_of_the_reward():
    _, parts = judged(WeightedReward(), overlong_buffer=6)
    assert parts[..., 1].tolist() == [[pytest.approx(-1 / 6)] * 2] * 2  # 3 tokens are one of six into the buffer
    with pytest.raises(
        UserError, match=r"overlong_buffer: 8 is not allowed; it must be below max_new_tokens, which is 8"
    ):
        GRPOModule(sampling=Sampling(2, 8), objective=Objective(overlong_buffer=8))


@pytest.mark.parametrize(
    ("weights", "parts", "message"),
    [
        ((1.0,), (1.0, 0.0), "Odd gave 2 parts and has 1 weights"),
        ((1.0, float("nan")), (1.0, 0.0), "not a finite number"),
        ((1.0, 1.0), (1e39, 0.0), "not a finite number"),  # of float32, in which rewards are compared
    ],
)
def test_rewards_in_parts_that_do_not_fit_are_one_line(weights, parts, message):
    class Odd(WeightedReward):
        @property
        def weights(self):
            return weights

        def parts(self, problem, completion, score):
            return parts

    with pytest.raises(UserError, match=message):
        judged(Odd(), reward_aggregation="normalize_then_sum")


def test_a_group_that_is_all_cut_off_teaches_nothing_where_such_rows_do_not_count():
    module, groups = Asked(set()), made([0, 1], [True, True])
    groups.rollout.finished[:2] = False
    assert module.live(groups).tolist() == [True, True]
    module.objective = Objective(mask_truncated_completions=True)
    assert module.live(groups).tolist() == [False, True]
