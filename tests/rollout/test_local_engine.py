"""The engine that samples from the policy itself: whose weights it samples from, and what bounds its memory."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.memory import Device, MemoryLimits, make_plan
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import LocalEngine, Sampling, local_engine
from rl_lightning.rollout.sampling import draw_uniforms
from rl_lightning.types import Rollout, UserError
from tests.conftest import generate, shake

SAMPLING = Sampling(num_generations=4, max_new_tokens=12)


def draws(sampling=SAMPLING, prompts=6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return draw_uniforms(generator, prompts * sampling.num_generations, sampling.max_new_tokens)


def started(policy, plan=None, limits=None) -> LocalEngine:
    engine = LocalEngine()
    engine.start(policy, plan, limits)
    engine.sync_weights()
    return engine


@pytest.fixture(scope="module")
def expected(policy, batch) -> tuple[Rollout, Rollout]:
    """Sampled and greedy completions where no plan bounds them."""
    engine = started(policy)
    return engine.generate(batch, SAMPLING, draws()), engine.generate(batch, SAMPLING, None)


def assert_same(ours, theirs):
    assert torch.equal(ours.completion_ids, theirs.completion_ids)
    assert torch.allclose(ours.sampling_logps, theirs.sampling_logps, atol=1e-5)
    assert ours.texts == theirs.texts


def test_completions_are_by_the_weights_of_the_last_sync(batch):
    policy = Policy(PolicyConfig("tiny", quantization="none"), torch.device("cpu"))
    engine = started(policy)
    before = engine.generate(batch, SAMPLING, draws())
    shake(policy, scale=0.1)
    assert_same(engine.generate(batch, SAMPLING, draws()), before)
    engine.sync_weights()
    after = engine.generate(batch, SAMPLING, draws())
    assert after.texts != before.texts
    assert_same(after, generate(policy, batch, SAMPLING))


@pytest.mark.parametrize("weights", ["merged", "unmerged"])
@pytest.mark.parametrize(("prompts", "group", "new_tokens"), [(6, 4, 12), (2, 4, 12), (6, 2, 12), (6, 4, 2)])
def test_a_plan_that_is_exceeded_changes_no_completion(policy, batch, expected, weights, prompts, group, new_tokens):
    """Of a step with as many prompts, completions and tokens, or with fewer."""
    config = PolicyConfig("tiny", quantization="none", rollout_weights=weights)
    step = Sampling(group, new_tokens).step_shape(prompts, batch.prompt_ids.shape[1])
    plan = make_plan(config, step, "auto", "auto", Device("", "cpu", 8e9), LocalEngine())
    limits = MemoryLimits.of(plan.settings.token_budget, plan.settings.max_rollout_rows)
    engine = started(policy, plan, limits)
    assert_same(engine.generate(batch, SAMPLING, draws()), expected[0])
    assert_same(engine.generate(batch, SAMPLING, None), expected[1])


def test_out_of_memory_halves_the_rows_and_changes_no_completion(policy, batch, expected, monkeypatch):
    original, limits, told = local_engine.sample_groups, MemoryLimits.of(1000, 24), []

    def little_memory(decoder, prompts, sampling, *args, **kwargs):
        if sampling.max_rollout_rows > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(decoder, prompts, sampling, *args, **kwargs)

    engine = started(policy, limits=limits)
    monkeypatch.setattr(local_engine, "sample_groups", little_memory)
    rollout = engine.generate(batch, SAMPLING, draws(), lambda row, text: told.append((row, text)))
    assert_same(rollout, expected[0])
    assert sorted(told) == list(enumerate(rollout.texts))
    assert (limits.rollout_rows.value, limits.token_budget.value) == (6, 1000)
    assert SAMPLING.max_rollout_rows == "auto"  # the user's own settings stay as they are


@pytest.mark.parametrize("draws_of_row", [draws(), None])
def test_an_evaluation_that_runs_out_of_memory_leaves_rollouts_as_they_are(
    policy, batch, expected, monkeypatch, draws_of_row
):
    original, limits, asked = local_engine.sample_groups, MemoryLimits.of(1000, 24, 20), []

    def little_memory(decoder, prompts, sampling, *args, **kwargs):
        asked.append(sampling.max_rollout_rows)
        if sampling.max_rollout_rows > 6 and len(asked) <= 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(decoder, prompts, sampling, *args, **kwargs)

    engine = started(policy, limits=limits)
    monkeypatch.setattr(local_engine, "sample_groups", little_memory)
    assert_same(engine.evaluator().generate(batch, SAMPLING, draws_of_row), expected[draws_of_row is None])
    assert_same(engine.evaluator().generate(batch, SAMPLING, draws_of_row), expected[draws_of_row is None])
    assert_same(engine.generate(batch, SAMPLING, draws()), expected[0])
    assert asked == [20, 10, 5, 5, 24]
    assert [limit.value for limit in vars(limits).values()] == [1000, 24, 5]


def test_an_evaluation_gives_up_its_own_graphs_alone(policy, batch, expected, launch, caplog):
    limits = MemoryLimits.of(1000, 24, 24)
    engine = started(policy, limits=limits)
    launch.failure = torch.OutOfMemoryError("CUDA out of memory")
    assert_same(engine.evaluator().generate(batch, SAMPLING, draws()), expected[0])
    assert "out of memory: evaluations use no CUDA graphs from here on" in caplog.text
    launch.failure = None
    captured = len(launch.captured)
    assert_same(engine.generate(batch, SAMPLING, draws()), expected[0])
    assert len(launch.captured) > captured
    assert [limit.value for limit in vars(limits).values()] == [1000, 24, 24]


def test_where_not_even_one_row_fits_the_run_ends_with_one_line(policy, batch, monkeypatch):
    def no_memory(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(local_engine, "sample_groups", no_memory)
    with pytest.raises(UserError, match="out of memory even with model.sampling.max_rollout_rows=1"):
        started(policy, limits=MemoryLimits.of(1000, 2)).generate(batch, SAMPLING, draws())


def test_the_plan_of_a_cpu_counts_a_packed_head():
    policy, step = PolicyConfig("Qwen/Qwen2.5-0.5B-Instruct", dtype="bfloat16"), Sampling(8, 64).step_shape(4, 100)
    cpu, gpu = (
        make_plan(policy, step, "auto", "auto", Device("", kind, 24e9), LocalEngine()) for kind in ("cpu", "cuda")
    )
    assert cpu.settings.merged
    assert gpu.settings.merged
    copies = [plan.phases["update"]["merged copy"] for plan in (cpu, gpu)]
    assert copies[0] - copies[1] == 2 * 151936 * 896
