"""What every rollout engine must do: the tests of `RolloutEngine`, to be inherited by a class with a fixture `engine`.

class TestMyEngine(EngineContract):
    @pytest.fixture(scope="class")
    def engine(self):
        return MyEngine()
"""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from rl_lightning.checkpointing.resume import rng_states
from rl_lightning.memory import Device, PlannedSettings, StepShape, make_plan
from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.rollout.sampling import draw_uniforms, token_probs
from rl_lightning.types import PromptBatch, Rollout
from tests.conftest import shake

GROUP, LIMIT = 2, 10
SAMPLING = Sampling(GROUP, LIMIT)


def draws(prompts: PromptBatch, sampling: Sampling = SAMPLING) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return draw_uniforms(generator, len(prompts) * sampling.num_generations, sampling.max_new_tokens)


def trainer_logps(policy: Policy, rollout: Rollout, temperature: float = 1.0) -> torch.Tensor:
    """(N, T) log-probs by the update's forward pass; 0 where masked."""
    logps = torch.zeros_like(rollout.sampling_logps)
    with torch.no_grad():
        for micro in pack(rollout, torch.arange(len(logps)), 10**6):
            logps[micro.row_of, micro.column_of] = policy.log_probs(micro, temperature)[0]
    return logps


def logits_at(policy: Policy, rollout: Rollout, row: int) -> torch.Tensor:
    """(T, V) logits from which a row's tokens were chosen, by the model's own forward."""
    of, length = row // rollout.group_size, int(rollout.lengths[row])
    prompt = rollout.prompt_ids[of, : rollout.prompt_lengths[of]]
    ids = torch.cat([prompt, rollout.completion_ids[row, :length]])
    with torch.no_grad():
        logits = policy.model(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1].float()
    logits[:, policy.head.words :] = -torch.inf
    return logits


def assert_same(ours: Rollout, theirs: Rollout) -> None:
    assert ours.texts == theirs.texts
    assert torch.equal(ours.completion_ids, theirs.completion_ids)
    assert torch.allclose(ours.sampling_logps, theirs.sampling_logps, atol=1e-4)


class EngineContract:
    """The tests; each class has a policy and an engine of its own, which is started once."""

    tolerance = 2e-4
    """Largest difference of any log-prob from the trainer's in float32, in nats."""

    begins_all_at_once = True
    """Whether rows begin together where there is room, so that shorter ones end earlier."""

    @pytest.fixture(scope="class")
    def trained(self) -> Policy:
        policy = Policy(PolicyConfig("tiny", quantization="none"), torch.device("cpu"))
        shake(policy)
        return policy

    @pytest.fixture(scope="class")
    def prompts(self, batch) -> PromptBatch:
        """Six prompts, of which one is much longer than the others, and one has a single token."""
        wide, lengths = batch.prompt_ids.repeat(1, 3)[:, :150], batch.prompt_lengths.clone()
        lengths[1], lengths[4] = wide.shape[1], 1
        return replace(batch, prompt_ids=wide, prompt_lengths=lengths)

    @pytest.fixture(scope="class")
    def started(self, engine, trained, prompts):
        step = StepShape(len(prompts), GROUP, prompts.prompt_ids.shape[1], 2 * LIMIT)
        plan = make_plan(trained.config, step, "auto", "auto", Device("", "cpu", 8e9), engine)
        engine.start(trained, plan)
        engine.sync_weights()
        yield engine
        engine.close()

    @pytest.fixture(scope="class")
    def rollout(self, started, prompts) -> Rollout:
        return started.generate(prompts, SAMPLING, draws(prompts))

    def test_tensors(self, rollout, prompts, trained):
        rows = len(prompts) * GROUP
        assert torch.equal(rollout.prompt_ids, prompts.prompt_ids)
        assert rollout.group_size == GROUP
        width = int(rollout.lengths.max())
        assert rollout.completion_ids.shape == rollout.mask.shape == rollout.sampling_logps.shape == (rows, width)
        dtypes = [t.dtype for t in (rollout.completion_ids, rollout.mask, rollout.sampling_logps, rollout.finished)]
        assert dtypes == [torch.int64, torch.bool, torch.float32, torch.bool]
        assert not any(t.is_inference() for t in vars(rollout).values() if isinstance(t, torch.Tensor))
        assert torch.equal(rollout.mask, torch.arange(width) < rollout.lengths[:, None])
        assert not rollout.sampling_logps[~rollout.mask].any()
        assert (rollout.completion_ids[~rollout.mask] == trained.pad_token_id).all()

    def test_log_probs_are_the_trainers_given_the_rows_own_prompt(self, rollout, trained):
        assert (trainer_logps(trained, rollout) - rollout.sampling_logps).abs().max() < self.tolerance
        shuffled = replace(
            rollout, prompt_ids=rollout.prompt_ids.flip(0), prompt_lengths=rollout.prompt_lengths.flip(0)
        )
        assert (trainer_logps(trained, shuffled) - rollout.sampling_logps).abs().max() > 100 * self.tolerance

    def test_a_row_ends_at_an_end_token_or_at_the_limit(self, started, prompts, trained):
        long = started.generate(
            prompts, replace(SAMPLING, max_new_tokens=2 * LIMIT), draws(prompts, Sampling(GROUP, 2 * LIMIT))
        )
        ends = torch.isin(long.completion_ids, trained.eos_token_ids) & long.mask
        assert long.finished.any()
        assert torch.equal(ends.any(dim=1), long.finished)
        assert torch.equal(ends.int().argmax(dim=1)[long.finished] + 1, long.lengths[long.finished])
        assert (ends.sum(dim=1) <= 1).all()
        assert (long.lengths[~long.finished] == 2 * LIMIT).all()
        for row, (length, ended) in enumerate(zip(long.lengths.tolist(), long.finished.tolist(), strict=True)):
            assert long.texts[row] == trained.decode_text(long.completion_ids[row, : length - ended])

    def test_a_limit_of_one_token(self, started, prompts):
        one = replace(SAMPLING, max_new_tokens=1)
        rollout = started.generate(prompts, one, draws(prompts, one))
        assert rollout.lengths.tolist() == [1] * len(prompts) * GROUP

    def test_the_same_draws_give_the_same_completions_and_others_give_others(self, started, prompts, rollout):
        assert_same(started.generate(prompts, SAMPLING, draws(prompts)), rollout)
        assert started.generate(prompts, SAMPLING, draws(prompts).flip(0)).texts != rollout.texts
        assert any(len(set(rollout.texts[n : n + GROUP])) > 1 for n in range(0, len(rollout.texts), GROUP))

    def test_a_row_does_not_depend_on_those_that_it_is_batched_with(self, started, prompts, rollout):
        some = started.generate(prompts.select(slice(3, 5)), SAMPLING, draws(prompts)[3 * GROUP : 5 * GROUP])
        assert some.texts == rollout.texts[3 * GROUP : 5 * GROUP]
        few = started.generate(prompts, replace(SAMPLING, max_rollout_rows=4), draws(prompts))
        assert_same(few, rollout)

    def test_rows_are_handed_over_once_each_as_they_end(self, started, prompts, rollout):
        told: list[tuple[int, str]] = []
        threads = set()

        def on_finished(row: int, text: str) -> None:
            told.append((row, text))
            threads.add(threading.current_thread())

        again = started.generate(prompts, SAMPLING, draws(prompts), on_finished)
        assert sorted(told) == list(enumerate(again.texts))
        assert threads == {threading.current_thread()}
        lengths = [int(again.lengths[row]) for row, _ in told]
        assert lengths == sorted(lengths) or not self.begins_all_at_once
        assert_same(again, rollout)

    @pytest.mark.parametrize(
        "filters", [{"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.2, "temperature": 1.5}]
    )
    def test_log_probs_are_under_the_distribution_after_temperature_and_filters(
        self, started, prompts, trained, filters
    ):
        sampling = replace(SAMPLING, **filters)
        rollout = started.generate(prompts, sampling, draws(prompts))
        for row in range(0, len(rollout.texts), GROUP):
            expected = token_probs(logits_at(trained, rollout, row), sampling).log()
            chosen = rollout.completion_ids[row, : len(expected), None]
            difference = expected.gather(1, chosen).squeeze(1) - rollout.sampling_logps[row, : len(expected)]
            assert difference.abs().max() < self.tolerance

    def test_without_draws_each_prompt_gets_its_most_likely_completion(self, started, prompts, trained):
        rollout = started.generate(prompts, SAMPLING, None)
        assert len(rollout.texts) == len(prompts)
        for row in range(len(prompts)):
            logits = logits_at(trained, rollout, row)
            assert torch.equal(logits.argmax(dim=1), rollout.completion_ids[row, : len(logits)])
        assert (trainer_logps(trained, rollout) - rollout.sampling_logps).abs().max() < self.tolerance

    def test_the_processs_rng_states_stay_as_they_are(self, started, prompts):
        before, set_num_threads = rng_states(), torch.set_num_threads
        started.sync_weights()
        started.generate(prompts, SAMPLING, draws(prompts))
        assert repr(rng_states()) == repr(before)
        assert torch.equal(rng_states()["torch"], before["torch"])
        assert torch.set_num_threads is set_num_threads

    def test_completions_are_by_the_weights_of_the_last_sync(self, started, prompts, trained):
        old = started.generate(prompts, SAMPLING, draws(prompts))
        of_old = trainer_logps(trained, old)
        for scale in (0.05, 0.02):  # more than one change: an engine may take the first one only
            shake(trained, scale)
            assert_same(started.generate(prompts, SAMPLING, draws(prompts)), old)
            started.sync_weights()
            new = started.generate(prompts, SAMPLING, draws(prompts))
            assert (trainer_logps(trained, new) - new.sampling_logps).abs().max() < self.tolerance
            old = new
        started.sync_weights()
        assert torch.equal(of_old, trainer_logps(trained, started.generate(prompts, SAMPLING, draws(prompts))))

    def test_evaluations_are_decided_by_the_draws_alone(self, started, prompts, trained):
        """So two policies are compared on common random numbers, whatever engine trained them."""
        evaluator, local = started.evaluator(), LocalEngine()
        local.start(trained)
        for engine in (evaluator, local):
            engine.sync_weights()
        assert_same(*(engine.generate(prompts, SAMPLING, draws(prompts)) for engine in (evaluator, local)))

    def test_it_starts_again_after_it_was_closed(self, started, prompts, trained, rollout):
        started.close()
        started.start(trained)
        started.sync_weights()
        assert_same(started.generate(prompts, SAMPLING, draws(prompts)), rollout)
        many = PromptBatch(8 * prompts.problems, prompts.prompt_ids.repeat(8, 1), torch.full((48,), 150), cursor=0)
        one = started.generate(
            many, Sampling(GROUP, 1), draws(many)[:, :1]
        )  # more tokens than a forward pass takes at once
        assert (trainer_logps(trained, one) - one.sampling_logps).abs().max() < self.tolerance

    def test_its_memory_is_predicted_before_anything_is_loaded(self, engine, trained):
        step = StepShape(4, 8, 100, 100)
        model = make_plan(trained.config, step, "auto", "auto", Device("", "cpu", 8e9), engine).model
        few, many = (
            max(
                sum(parts.values()) + sum(memory.resident.values())
                for memory in [
                    engine.memory(model, step, PlannedSettings(1000, rows, False, True), Device("", "cpu", 8e9))
                ]
                for parts in memory.peaks
            )
            for rows in (4, 32)
        )
        assert 0 < few < many
