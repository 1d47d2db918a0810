"""The benchmark against TRL: the same work for both sides, and the roofline by hand. Tests of TRL are skipped without it."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import training_clock
from benchmark import learn_ours, ours, roofline
from benchmark.learning import LearningRun, quickstart
from benchmark.roofline import StepTokens
from benchmark.tables import workload_summary
from benchmark.task_prompts import TaskPrompts
from benchmark.workloads import SCALING, WORKLOADS, Shape, make_model, problems, read_config
from peft import LoraConfig, get_peft_model
from run_config import build, resolve_settings
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_lightning.policy.config import resolve_name
from rl_lightning.training import metrics
from tests.scripts.ticking_clock import tick
from tests.scripts.toy_workload import RATES, SHAPE, TOY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture(scope="module")
def toy_model(tmp_path_factory):
    return make_model(TOY, tmp_path_factory.mktemp("toy") / "model")


@pytest.mark.parametrize(("mean_tokens", "least", "most"), [(10, 0.05, 0.2), (float("inf"), 0, 1e-6)])
def test_a_random_model_ends_as_often_as_it_is_told(tmp_path, mean_tokens, least, most):
    model = AutoModelForCausalLM.from_pretrained(make_model(replace(TOY, mean_tokens=mean_tokens), tmp_path))
    ids = torch.randint(SHAPE.vocabulary, (8, 24), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        end = model(input_ids=ids).logits.softmax(dim=-1)[..., model.generation_config.eos_token_id]
    assert least <= end.mean() <= most


def test_prompts_are_lengthened_to_the_very_token():
    asked = TaskPrompts(read_config("quickstart"), AutoTokenizer.from_pretrained(resolve_name("tiny")))
    made = problems(replace(TOY, prompt_tokens=150), asked, steps=3)
    assert [len(asked.token_ids(p)) for p in made] == [150] * 6
    assert len({p.question for p in made}) == 6


def test_worked_examples_are_the_same_conversation_for_both_sides():
    config = read_config("quickstart")
    config["data"] |= {"examples": 2, "system_prompt": "Solve it."}
    asked = TaskPrompts(config, AutoTokenizer.from_pretrained(resolve_name("tiny")))
    for problem in asked.problems(4):
        messages = asked.messages(problem)
        assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * 2, "user"]
        assert messages[-1]["content"] == problem.question.strip()
        assert problem not in asked.held_out
    asked.template.show({})
    with pytest.raises(RuntimeError, match="different prompts of"):
        asked.messages(problem)


def test_every_workload_divides_into_the_peers_micro_batches():
    assert all(w.rows % w.peer_rows == 0 for w in (*WORKLOADS.values(), *SCALING))


def test_weights_are_counted_as_the_model_has_them(policy):
    shape = Shape.of(resolve_name("tiny"))
    layers = policy.model.get_base_model().get_decoder().layers
    linear = [m.weight.numel() for m in layers[0].modules() if hasattr(m, "lora_A")]
    assert roofline.linear_weights(shape) == sum(linear)
    assert shape.layers * roofline.adapter_weights(shape) == sum(p.numel() for p in policy.trained_parameters())


def test_each_token_attends_to_itself_and_all_before_it():
    prompt, completion, group = 5, 3, 2
    by_hand = sum(range(1, prompt + 1)) + group * sum(range(prompt + 1, prompt + completion + 1))
    assert roofline.attended_tokens(1, prompt, group, group * completion) == by_hand


def test_the_updates_operations_are_those_that_torch_counts(toy_model):
    tokens, predicted = 12, 5
    model = AutoModelForCausalLM.from_pretrained(toy_model, attn_implementation="eager").requires_grad_(False)
    model = get_peft_model(model, LoraConfig(r=roofline.RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(tokens)[None], logits_to_keep=predicted).logits.sum().backward()
    # Eager attention is over all tokens, masked or not.
    by_us = roofline.update_flops(SHAPE, tokens, predicted, attended=tokens**2)
    assert counter.get_total_flops() == pytest.approx(by_us, rel=1e-3)  # rotary positions are a product too


def test_the_limit_is_the_slower_of_operations_and_bytes():
    tokens = StepTokens(prompts=2, prompt_tokens=10, rows=4, completion_tokens=16, longest=4)
    least = roofline.least_seconds(SHAPE, tokens, roofline.PeakRates(flops=1e9, bandwidth=1e30))
    assert least["sample"] == pytest.approx(roofline.rollout_flops(SHAPE, tokens) / 1e9)
    least = roofline.least_seconds(SHAPE, tokens, roofline.PeakRates(flops=1e30, bandwidth=1e9))
    assert least["sample"] == pytest.approx(roofline.rollout_bytes(SHAPE, tokens) / 1e9)


def test_our_side_reports_what_it_has_done(toy_model, monkeypatch):
    tick(monkeypatch, ours, metrics)
    report = ours.run(TOY, toy_model, steps=1, warm_up=1, account=True)
    assert len(report["steps"]) == 2
    for step in report["steps"]:
        assert step["sampled_tokens"] == step["trained_tokens"] == TOY.rows * TOY.new_tokens  # no completion ends
        assert step["sample"] == step["train"] == 1
        assert 0 < step["sample"] + step["train"] < step["seconds"]
    assert report["tensors"] > TOY.rows * SHAPE.vocabulary * roofline.FLOAT  # the logits of a draw, at least
    weights = SHAPE.layers * (roofline.linear_weights(SHAPE) + roofline.adapter_weights(SHAPE))
    assert report["parameters"] > roofline.FLOAT * (weights + SHAPE.vocabulary * SHAPE.width)
    assert report["peak"] == 0  # the account takes memory of its own
    found = workload_summary(TOY, SHAPE, {"ours": [report, {**report, "account": False}]}, RATES)
    assert found["least_seconds"]["train"] > 0


def test_the_clock_stands_still_while_a_side_evaluates(monkeypatch):
    now = 100.0
    monkeypatch.setattr(training_clock, "time", SimpleNamespace(perf_counter=lambda: now))

    def evaluate(accuracy: float) -> float:
        nonlocal now
        now += 50
        return accuracy

    run = LearningRun("ours", seed=0, every=2, target=0.85)
    run.start(lambda: evaluate(0.2))
    now += 3
    assert not run.step_ended(1, lambda: evaluate(1.0))  # not the turn of an evaluation
    now += 4
    assert run.step_ended(2, lambda: evaluate(0.9))
    assert (run.training_seconds, run.evaluation_seconds) == (7, 100)
    assert [(e["step"], e["training_seconds"]) for e in run.evaluations] == [(0, 0), (2, 7)]


def small_quickstart(steps: int) -> dict:
    config = quickstart()
    config["trainer"]["max_steps"] = steps
    config["data"] |= {"prompts_per_step": 4, "eval_num_samples": 2, "num_workers": 0}
    config["model"]["sampling"] |= {"num_generations": 2}
    return config


def test_our_side_trains_on_the_quickstart_and_ends_at_the_target():
    run = LearningRun("ours", seed=1, every=1, target=0.0)
    learn_ours.train(run, small_quickstart(steps=5))
    assert run.reached
    assert [e["step"] for e in run.evaluations] == [0, 1]
    config = quickstart()
    module, data = build(resolve_settings(config, seed=1))
    assert (module.sampling.num_generations, module.learning_rate, module.reward.format) == (16, 1e-3, 0.1)
    assert (data.prompts_per_step, data.eval_num_samples, data.seed) == (16, 50, 1)


@pytest.mark.trl
def test_both_sides_train_on_the_same_prompts_and_rewards(toy_model, monkeypatch):
    pytest.importorskip("trl", reason="needs the extra [bench]")
    from benchmark import peer

    prompts, earned = [], []
    generate, reward = peer.TimedTrainer._generate, peer.reward

    def generating(self, inputs):
        ids, *rest = out = generate(self, inputs)
        prompts.append([tuple(i) for i in ids])
        return out

    def rewarding(prompts, completions, **kwargs):
        earned.append(reward(prompts, completions, **kwargs))
        return earned[-1]

    monkeypatch.setattr(peer.TimedTrainer, "_generate", generating)
    monkeypatch.setattr(peer, "reward", rewarding)
    report = peer.run(TOY, toy_model, steps=2)
    data = ours.workload_prompts(TOY, toy_model, steps=2)
    theirs = [
        [tuple(ids[:n]) for ids, n in zip(b.prompt_ids.tolist(), b.prompt_lengths.tolist(), strict=True)]
        for b in data.batches
    ]
    assert prompts == [[ids for ids in step for _ in range(TOY.generations)] for step in theirs]
    assert earned == [[0.0, 1.0, 0.0, 1.0]] * 2
    assert [s["sampled_tokens"] for s in report["steps"]] == [TOY.rows * TOY.new_tokens] * 2
    assert [s["prompt_tokens"] for s in report["steps"]] == [int(b.prompt_lengths.sum()) for b in data.batches]


@pytest.mark.trl
def test_both_sides_learn_the_same_from_the_same():
    pytest.importorskip("trl", reason="needs the extra [bench]")
    from benchmark import learn_peer

    config = small_quickstart(steps=1)
    run = LearningRun("peer", seed=1, every=1, target=0.85)
    mine = LearningRun("ours", seed=1, every=1, target=0.85)
    learn_peer.train(run, config, micro_batch=8)
    learn_ours.train(mine, config)
    assert len(run.evaluations) == 2
    assert (
        run.evaluations[0]["accuracy"] == mine.evaluations[0]["accuracy"]
    )  # the same policy, greedy, the same problems
    tokenizer = AutoTokenizer.from_pretrained(resolve_name("tiny"))
    asked = TaskPrompts(config, tokenizer)
    trained = asked.problems(4, seed=1)
    module, data = build(resolve_settings(config, seed=1))
    data.trainer = SimpleNamespace(lightning_module=module)
    data.setup("fit")
    assert asked.held_out == data.eval_problems
    assert trained == list(next(iter(data.train_dataloader())).problems)
    scorer = learn_peer.TokenScorer(config, asked)
    right = tokenizer(f"<think>\n1</think> <answer>{trained[0].expected}</answer>", add_special_tokens=False)
    ids = [*right["input_ids"], tokenizer.eos_token_id]
    (score, earned), (_, nothing) = scorer(trained[:1] * 2, [ids, ids[:3]])
    scorer.scorer.close()
    assert (score.exact, earned, nothing) == (1, pytest.approx(1.1), 0)
