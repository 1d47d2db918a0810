"""The benchmark: the same work for both sides, honest sums, tables from files. What needs the peer is skipped without it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import bench
import pytest
import stopwatch
import torch
from benchmark import learn_ours, limits, ours, rounds
from benchmark.learning import Course, quickstart
from benchmark.limits import Tokens
from benchmark.table import learnt, summary
from benchmark.work import SCALING, WORKLOADS, Shape, Workload, make_model, problems, quickstart_tasks
from pages import put_into
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from training import made, resolved
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_lightning.policy.loading import resolve_name
from rl_lightning.tasks.prompts import PromptTemplate
from rl_lightning.types import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

SHAPE = Shape(vocabulary=1024, layers=1, width=32, mlp=64, heads=2, kv_heads=1)
TOY = Workload("toy", prompts=2, generations=2, new_tokens=4, shape=SHAPE, peer_rows=2, steps=1)
RATES = {"flops": {"square": 2e9}, "bandwidth": {"read": 1e9}}


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
    template = PromptTemplate(AutoTokenizer.from_pretrained(resolve_name("tiny")), system_prompt="")
    made = problems(replace(TOY, prompt_tokens=150), quickstart_tasks(), template, steps=3)
    assert [len(template.token_ids(p.question)) for p in made] == [150] * 6
    assert len({p.question for p in made}) == 6


def test_every_workload_divides_into_the_peers_micro_batches():
    assert all(w.rows % w.peer_rows == 0 for w in (*WORKLOADS.values(), *SCALING))


def test_weights_are_counted_as_the_model_has_them(policy):
    shape = Shape.of(resolve_name("tiny"))
    layers = policy.model.get_base_model().get_decoder().layers
    linear = [m.weight.numel() for m in layers[0].modules() if hasattr(m, "lora_A")]
    assert limits.linear_weights(shape) == sum(linear)
    assert shape.layers * limits.adapter_weights(shape) == sum(p.numel() for p in policy.adapter_parameters())


def test_each_token_looks_at_itself_and_all_before_it():
    prompt, completion, group = 5, 3, 2
    by_hand = sum(range(1, prompt + 1)) + group * sum(range(prompt + 1, prompt + completion + 1))
    assert limits.attended(1, prompt, group, group * completion) == by_hand


def test_the_updates_operations_are_those_that_torch_counts(toy_model):
    tokens, predicted = 12, 5
    model = AutoModelForCausalLM.from_pretrained(toy_model, attn_implementation="eager").requires_grad_(False)
    model = get_peft_model(model, LoraConfig(r=limits.RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(tokens)[None], logits_to_keep=predicted).logits.sum().backward()
    by_us = limits.update_flops(
        SHAPE, tokens, predicted, looked_at=tokens**2
    )  # eager attention looks at all, masked or not
    assert counter.get_total_flops() == pytest.approx(by_us, rel=1e-3)  # rotary positions are a product too


def test_the_limit_is_the_slower_of_operations_and_bytes():
    work = Tokens(prompts=2, prompt_tokens=10, rows=4, completion_tokens=16, longest=4)
    least = limits.least_seconds(SHAPE, work, limits.Machine(flops=1e9, bandwidth=1e30))
    assert least["sample"] == pytest.approx(limits.rollout_flops(SHAPE, work) / 1e9)
    least = limits.least_seconds(SHAPE, work, limits.Machine(flops=1e30, bandwidth=1e9))
    assert least["sample"] == pytest.approx(limits.rollout_bytes(SHAPE, work) / 1e9)


def test_our_side_reports_what_was_done(toy_model):
    report = ours.run(TOY, toy_model, steps=1, warm_up=1, account=True)
    assert len(report["steps"]) == 2
    for step in report["steps"]:
        assert step["sampled_tokens"] == step["trained_tokens"] == TOY.rows * TOY.new_tokens  # no completion ends
        assert 0 < step["sample"] + step["train"] < step["seconds"]
    assert report["tensors"] > TOY.rows * SHAPE.vocabulary * limits.FLOAT  # the logits of a draw, at least
    weights = SHAPE.layers * (limits.linear_weights(SHAPE) + limits.adapter_weights(SHAPE))
    assert report["parameters"] > limits.FLOAT * (weights + SHAPE.vocabulary * SHAPE.width)
    assert report["peak"] == 0  # the account takes memory of its own
    assert summary(TOY, SHAPE, {"ours": [report, {**report, "account": False}]}, RATES)["least_seconds"]["train"] > 0


def side(name: str, seconds: float, peaks: tuple[int, ...] = (900, 500)) -> list[dict]:
    """Two rounds' reports of a side: the first with an account, a warm-up step each."""
    step = {"sample": seconds / 2, "train": seconds / 4, "sampled_tokens": 40, "trained_tokens": 30, "longest": 10}
    steps = [{**step, "seconds": s, "prompt_tokens": 20} for s in (99.0, seconds)]
    fields = {
        "side": name,
        "warm_up": 1,
        "before_load": 100,
        "loaded": 300,
        "parameters": 200,
        "predicted": 65,
        "workers": 7,
    }
    accounts = ((True, 60), (False, 0))
    return [
        {**fields, "account": account, "tensors": tensors, "peak": peak, "steps": steps}
        for (account, tensors), peak in zip(accounts, peaks, strict=True)
    ]


def result() -> dict:
    sides = {"ours": side("ours", 2.0), "peer": side("peer", 8.0, (999, 1100))}
    return {"machine": rounds.machine(1), **summary(TOY, SHAPE, sides, RATES)}


def test_ratios_are_of_the_medians_without_warm_up():
    found = result()
    assert found["ours"]["step_seconds"] == 2
    assert found["peer"]["rollout_tokens_per_second"] == 10
    assert found["ours"]["peak_above_model"] == 200  # of the round without an account
    assert found["ours"]["tensors_above_step_start"] == 60
    assert found["ratios"] == {"step": 4, "rollout": 4, "training": 4, "memory": 4}


def test_a_side_without_warm_up_counts_every_step_and_leaves_the_account_blank():
    peer = [{**report, "warm_up": 0, "account": False, "tensors": 0} for report in side("peer", 1.0)]
    found = {"machine": rounds.machine(1), **summary(TOY, SHAPE, {"ours": side("ours", 2.0), "peer": peer}, RATES)}
    assert (found["peer"]["steps"], found["peer"]["longest_step"]) == (4, 99)
    assert "| `prefix` | TRL | 50 (1 to 99) | 80 | 120 | 0.00 |  |" in bench.table("prefix", {"prefix": found})


def course(name: str, seed: int, seconds: float, reached: bool = True) -> dict:
    evaluations = [{"step": 0, "training_seconds": 0.0, "accuracy": 0.2}]
    evaluations += [{"step": 4, "training_seconds": seconds, "accuracy": 0.9 if reached else 0.5}]
    fields = {"side": name, "seed": seed, "reached": reached, "evaluations": evaluations}
    return {**fields, "training_seconds": seconds, "evaluation_seconds": 1.0, "process_seconds": seconds + 9}


def race(reached: bool = True) -> dict:
    runs = {name: [course(name, seed, s * (seed + 1), reached) for seed in (0, 1, 2)] for name, s in PACE.items()}
    settings = {"machine": rounds.machine(1), "target": 0.85, "every": 2}
    return settings | learnt(runs)


PACE = {"ours": 3.0, "peer": 12.0}


def test_the_race_is_won_by_the_median_over_the_seeds():
    assert race()["medians"]["ours"]["training_seconds"] == 6
    assert race()["ours_to_peer"]["training_seconds"] == 0.25
    assert race(reached=False)["ours_to_peer"] is None


def test_tables_come_from_the_files(tmp_path, capsys):
    results, page = tmp_path / "results", tmp_path / "page.md"
    results.mkdir()
    for name, of in {"tiny": result(), "scaling base": result(), "learn": race()}.items():
        bench.result_file(results, name).write_text(json.dumps(of))
    sections = ("workloads", "scaling", "learn")
    page.write_text(
        "# Page\n" + "".join(f"\nabout {s}\n<!-- {s} -->\nold\n<!-- /{s} -->\n" for s in sections) + "end\n"
    )
    words = ["--table", "--results", str(results), "--page", str(page)]
    assert bench.main(words) == 0
    written = page.read_text()
    assert "old" not in written
    assert "| `tiny` | ours | 2 (2 to 2) | 40 |" in written
    assert "| | TRL to ours | **4.0×** | **4.0×** | **4.0×** | **4.0×** | |" in written
    assert "| base | 2 × 2 | 4 | 1,024 | 2 | 66.7 |" in written
    assert "| 0.000 | 0.000 | +8% |" in written
    assert "| 2 | TRL | 4 | 0.200 to 0.900 | 36.0 |" in written
    assert "| medians | ours to TRL | | | **0.25** |" in written
    assert [line for line in written.splitlines() if line.startswith(("#", "about", "end"))] == [
        "# Page",
        *(f"about {s}" for s in sections),
        "end",
    ]
    assert bench.main(words) == 0
    assert page.read_text() == written


def test_an_unreached_target_is_said(tmp_path):
    assert "0.200 to 0.500, short of 0.85" in bench.table("learn", {"learn": race(reached=False)})


def test_the_pages_marks_are_there():
    text = (bench.ROOT / "docs" / "performance.md").read_text()
    assert all(f"<!-- {s} -->\n" in text and f"<!-- /{s} -->" in text for s in ("workloads", "scaling", "learn"))


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(UserError, match="<!-- learn -->"):
        put_into(page, "learn", "text")


def test_nothing_is_measured_over_a_result_that_is_there(tmp_path, capsys):
    for point in bench.POINTS:
        bench.result_file(tmp_path, point).write_text("{}")
    assert bench.main(["--workload", "scaling", "--results", str(tmp_path)]) == 2
    assert "bench_scaling_all_at_their_most.json: exists already" in capsys.readouterr().err


def test_scaling_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    """Point by point: what has a file is not measured again."""
    names, measured = list(bench.POINTS), []

    def compare(workload, rounds, steps, threads, sides):
        measured.append((workload.name, sides))
        return result()

    monkeypatch.setattr(bench, "compare", compare)
    for name in names[:-2]:
        bench.result_file(tmp_path, name).write_text("{}")
    assert bench.main(["--workload", "scaling", "--results", str(tmp_path)]) == 0
    assert measured == [(name, ("ours",)) for name in names[-2:]]
    assert bench.result_file(tmp_path, names[-1]).exists()


def test_a_missing_peer_is_one_line(monkeypatch, tmp_path, capsys):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(rounds, "version", missing)
    assert bench.main(["--workload", "tiny", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install -c constraints.txt -e .[bench]")


def test_the_clock_stands_still_while_a_side_evaluates(monkeypatch):
    now = 100.0
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: now))

    def evaluate(accuracy: float) -> float:
        nonlocal now
        now += 50
        return accuracy

    run = Course("ours", seed=0, every=2, target=0.85)
    run.begin(lambda: evaluate(0.2))
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


def test_our_side_of_the_race_is_the_quickstart_and_ends_at_the_target():
    run = Course("ours", seed=1, every=1, target=0.0)
    learn_ours.run(run, **small_quickstart(steps=5))
    assert run.reached
    assert [e["step"] for e in run.evaluations] == [0, 1]
    config = quickstart()
    module, data = made(resolved(config, seed=1))
    assert (module.sampling.num_generations, module.learning_rate, module.reward.format) == (16, 1e-3, 0.1)
    assert (data.prompts_per_step, data.eval_num_samples, data.seed) == (16, 50, 1)


# With the peer


def test_both_sides_train_on_the_same_prompts_and_rewards(toy_model, monkeypatch):
    pytest.importorskip("trl", reason="needs the extra [bench]")
    from benchmark import peer

    asked, earned = [], []
    generate, reward = peer.TimedTrainer._generate, peer.reward

    def generating(self, prompts):
        ids, *rest = out = generate(self, prompts)
        asked.append([tuple(i) for i in ids])
        return out

    def rewarding(prompts, completions, **kwargs):
        earned.append(reward(prompts, completions, **kwargs))
        return earned[-1]

    monkeypatch.setattr(peer.TimedTrainer, "_generate", generating)
    monkeypatch.setattr(peer, "reward", rewarding)
    report = peer.run(TOY, toy_model, steps=2)
    data = ours.FixedPrompts(TOY, toy_model, steps=2)
    theirs = [
        [tuple(ids[:n]) for ids, n in zip(b.prompt_ids.tolist(), b.prompt_lengths.tolist(), strict=True)]
        for b in data.batches
    ]
    assert asked == [[ids for ids in step for _ in range(TOY.generations)] for step in theirs]
    assert earned == [[0.0, 1.0, 0.0, 1.0]] * 2
    assert [s["sampled_tokens"] for s in report["steps"]] == [TOY.rows * TOY.new_tokens] * 2
    assert [s["prompt_tokens"] for s in report["steps"]] == [int(b.prompt_lengths.sum()) for b in data.batches]


def test_both_sides_race_over_the_same_course():
    pytest.importorskip("trl", reason="needs the extra [bench]")
    from benchmark import learn_peer

    config = small_quickstart(steps=1)
    run = Course("peer", seed=1, every=1, target=0.85)
    mine = Course("ours", seed=1, every=1, target=0.85)
    learn_peer.run(run, micro_batch=8, **config)
    learn_ours.run(mine, **config)
    assert len(run.evaluations) == 2
    assert (
        run.evaluations[0]["accuracy"] == mine.evaluations[0]["accuracy"]
    )  # the same policy, greedy, the same problems
    tokenizer = AutoTokenizer.from_pretrained(resolve_name("tiny"))
    trained, held_out = learn_peer.prompts(config, tokenizer, seed=1)
    module, data = made(resolved(config, seed=1))
    data.trainer = SimpleNamespace(lightning_module=module)
    data.setup("fit")
    assert held_out == data.eval_problems
    assert trained == list(next(iter(data.train_dataloader())).problems)
    judge = learn_peer.Judge(config, tokenizer)
    right = tokenizer(f"<think>\n1</think> <answer>{trained[0].entry['answer']}</answer>", add_special_tokens=False)
    ids = [*right["input_ids"], tokenizer.eos_token_id]
    (score, earned), (_, nothing) = judge.scores(trained[:1] * 2, [ids, ids[:3]])
    judge.scorer.close()
    assert (score.exact, earned, nothing) == (1, pytest.approx(1.1), 0)
