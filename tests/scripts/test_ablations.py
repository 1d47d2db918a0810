"""Ablations: a toy experiment from the command line to its table, the arithmetic by hand, and how it is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ablations
import pytest
import torch
import training_clock
from ablation import picture, runner, tables
from ablation.experiments import Experiment
from ablation.progress import Progress
from ablation.results import Result
from ablation.run import Evaluator, run
from matplotlib.image import imread
from run_config import build

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.stream import eval_problems, held_out_hashes
from tests.scripts.ticking_clock import tick
from tests.scripts.toy_experiment import MACHINE, toy_runs, written


@pytest.fixture
def toy(tmp_path) -> Path:
    return written(tmp_path / "toy.yaml")


def test_from_the_command_to_the_page(tmp_path, capsys, monkeypatch):
    # Refused only when the run begins: there are no such words.
    bad = {"data.datasets.spell_backward.config": {"min_word_len": 30, "max_word_len": 30}}
    toy = written(tmp_path / "toy.yaml", variants={"plain": {}, "bad": bad})
    page, results = tmp_path / "page.md", tmp_path / "results"
    page.write_text("before\n<!-- toy -->\nold\n<!-- /toy -->\nafter\n")
    argv = [str(toy), "--seeds", "3", "--jobs", "2", "--results", str(results), "--page", str(page)]
    assert ablations.main(argv) == 1
    said = capsys.readouterr().out
    assert "toy: 2 runs, 0 of them done already" in said
    assert "bad, seed 3: FAILED: datasets.spell_backward: its first problems all fail" in said
    assert "\nplain, seed 3: 0." in said
    assert [file.name for file in (results / "toy").iterdir()] == ["plain_seed_3.json"]

    def no_process(*_, **__):
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(runner.subprocess, "Popen", no_process)
    assert ablations.main([*argv, "--variants", "plain", "--table"]) == 0
    assert "toy: 1 runs, 1 of them done already" in capsys.readouterr().out
    text = page.read_text()
    assert text.startswith("before\n<!-- toy -->\nDoes it run?\n\n| variant | seeds | before | after 0.2 s | after ")
    assert "old" not in text
    assert "![toy: held-out accuracy](page_toy.png)\n<!-- /toy -->\nafter\n" in text
    assert imread(tmp_path / "page_toy.png").size


def test_a_run_is_evaluated_on_the_experiments_problems_whatever_it_trains_on(toy, monkeypatch):
    tick(monkeypatch, training_clock, seconds=1 / 16)
    plain, shorter = toy_runs(toy, seeds=[3])
    assert plain.settings["suite"] == shorter.settings["suite"]
    assert plain.settings["data"]["datasets"] != shorter.settings["data"]["datasets"]
    reported = []
    result = run(shorter.settings, reported.append)
    assert result["evaluations"] == reported
    first, *others = reported
    assert (first["step"], first["seconds"], first["sampled"]) == (0, 0, 0)
    assert [e["step"] for e in others] == list(range(1, len(others) + 1))
    assert [e["sampled"] for e in others] == [4 * e["step"] for e in others]
    assert all(e["with_advantage"] <= e["sampled"] and list(e["tasks"]) == ["spell_backward"] for e in reported)
    # After the fourth step 0.2 s are over.
    assert [e["seconds"] for e in reported] == [0, 1 / 16, 2 / 16, 3 / 16, 4 / 16]
    assert reported[-1]["seconds"] >= 0.2 > reported[-2]["seconds"]
    suite = shorter.settings["suite"]
    tasks = EnvironmentMixture({name: TaskSpec(config=config) for name, config in suite["datasets"].items()})
    assert {len(p.expected) for p in eval_problems(tasks, suite["seed"], 20)} == {4, 5}


def test_held_out_problems_are_kept_out_of_training_and_looked_for(toy):
    settings = toy_runs(toy)[1].settings  # trains on other words
    module, data = build(settings)
    data.trainer = SimpleNamespace(lightning_module=module)
    data.setup("fit")
    evaluator = Evaluator(settings, print)
    evaluator.setup(SimpleNamespace(datamodule=data), module, "fit")
    assert len(evaluator.problems) == 2
    assert held_out_hashes(evaluator.problems) <= data.stream.held_out
    prompts, rollout = SimpleNamespace(problems=evaluator.problems), SimpleNamespace(texts=("", ""))
    rollouts = SimpleNamespace(prompts=prompts, rollout=rollout)
    record = SimpleNamespace(advantages=torch.zeros(2), rollouts=rollouts)
    with pytest.raises(RuntimeError, match="a held-out problem was trained on"):
        evaluator.on_step_end(SimpleNamespace(), module, record)


def result(seed: int, accuracies: list[float], seconds: list[float], settings: dict | None = None) -> Result:
    points = zip(accuracies, seconds, strict=True)
    evaluations = [
        {"step": n, "seconds": s, "sampled": 10 * n, "with_advantage": 5 * n, "accuracy": a}
        for n, (a, s) in enumerate(points)
    ]
    return Result(seed, settings or {"seconds": 3.0}, evaluations, MACHINE)


def constructed(variants: int = 2) -> dict[str, list[Result]]:
    """Three seeds each; every variant is 0.1 better than the one before, all seeds alike."""
    return {
        f"v{v}": [result(s, [0.0, 0.2 + 0.1 * v, 0.4 + 0.1 * v + 0.01 * s], [0.0, 2.0, 4.0]) for s in range(3)]
        for v in range(variants)
    }


def test_accuracy_between_evaluations_is_on_a_straight_line():
    run = result(0, [0.0, 0.4, 0.8], [0.0, 2.0, 4.0])
    assert run.accuracy("seconds", 3) == pytest.approx(0.6)
    assert run.accuracy("sampled", 15) == pytest.approx(0.6)
    assert run.accuracy("seconds", 2) == pytest.approx(0.4)
    assert run.mean_accuracy("seconds", 3) == pytest.approx(0.3)  # the line from 0 to 0.6
    late = result(0, [0.0, 0.0, 0.6], [0.0, 2.0, 4.0])
    assert late.mean_accuracy("seconds", 3) == pytest.approx((0 * 2 + 0.15 * 1) / 3)


def test_variants_are_compared_seed_by_seed():
    found = constructed()
    found["v1"] = found["v1"][1:]  # seed 0 is still to come
    time, completions, _ = tables.measures(found)
    assert (time.title, completions.title) == ("after 3 s", "after 20 completions")
    assert tables.seed_mean(found, "v0", time).mean == pytest.approx(0.305)
    for measure in (time, completions):
        difference = tables.difference_to_first(found, "v1", measure)
        assert (difference.mean, difference.low, difference.high) == pytest.approx(
            (0.1, 0.1, 0.1)
        )  # the seeds' own scatter is gone
        assert not difference.within_noise
    assert tables.difference_to_first({"v0": found["v0"][:1], "v1": found["v1"]}, "v1", time) is None


def test_the_table_says_what_is_noise():
    found = constructed()
    found["v2"] = [result(s, [0.0, 0.2, 0.4 + 0.05 * (-1) ** s], [0.0, 2.0, 4.0]) for s in range(3)]
    experiment = Experiment("made_up", "Which?", 3, 1, {}, {name: {} for name in found})
    lines = tables.table(experiment, found).splitlines()
    assert "| v0 | 3 | 0.000 | 0.305 (0.293 to 0.317) | 0.410 (0.385 to 0.435) | 0.151 (0.149 to 0.153) " in lines[4]
    assert lines[4].endswith("| 2 | 20 | 50% |")
    (second,) = (line for line in lines if line.startswith("| v1 | **"))
    assert "**+0.100 (+0.100 to +0.100)**" in second
    assert "within noise" in next(line for line in lines if line.startswith("| v2 | +"))
    assert lines[-1] == "an abacus, 1 of 2 cores; Python 3, torch 2."


@pytest.mark.parametrize("variants", [1, 2, 10])
def test_a_picture_of_any_number_of_variants(tmp_path, variants):
    picture.draw(constructed(variants), tmp_path / "curves.png")
    height, width, _ = imread(tmp_path / "curves.png").shape
    assert width > height


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["objectifs"], "'objectifs' is not an experiment; did you mean objectives? there are: "),
        (["surrogates", "--variants", "sappo"], "surrogates has no variant 'sappo'; did you mean sapo? "),
        (["no/such.yaml"], "'no/such.yaml' is not an experiment; "),
    ],
)
def test_an_unknown_name_is_one_line(argv, message, capsys, tmp_path):
    assert ablations.main([*argv, "--results", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_when_it_is_stopped_the_runs_end_too(tmp_path, capsys, monkeypatch):
    file, started = written(tmp_path / "toy.yaml", seconds=600.0), []

    class Endless(subprocess.Popen):
        """Does nothing, without end, whatever the machine does meanwhile."""

        def __init__(self, command, **kwargs):
            assert command[:3] == [sys.executable, "-m", "ablation.run"]
            super().__init__([sys.executable, "-c", "while True: input()"], **kwargs | {"stdin": subprocess.PIPE})
            started.append(self)

    def interrupt(self, run):
        raise KeyboardInterrupt  # in a thread of the runner, which hands it on

    monkeypatch.setattr(runner.subprocess, "Popen", Endless)
    monkeypatch.setattr(Progress, "started", interrupt)
    assert ablations.main([str(file), "--seeds", "0", "--jobs", "1", "--results", str(tmp_path)]) == ablations.STOPPED
    assert started
    assert [process.wait() for process in started] == [-signal.SIGTERM] * len(started)
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "toy").exists()
