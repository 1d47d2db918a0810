"""The laboratory: a toy course from the command line to its table, the arithmetic by hand, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import lab
import pytest
import torch
import yaml
from benchmark.learning import quickstart
from laboratory import courses, crew, picture, standings
from laboratory.board import Board
from laboratory.courses import Course, Run, changed
from laboratory.results import Result, is_done, results_of
from laboratory.run import Counting, Referee, run
from matplotlib.image import imread
from training import made

from rl_lightning.tasks.stream import TaskMixture, TaskSpec, eval_problems, held_out_hashes
from rl_lightning.types import UserError

TOY = {
    "about": "Does it run?",
    "seconds": 0.2,
    "every": 1,
    "base": {
        "model.lr_schedule": "constant",
        "model.sampling.num_generations": 2,
        "model.sampling.max_new_tokens": 16,
        "model.score_workers": 1,
        "data.prompts_per_step": 2,
        "data.num_workers": 0,
        "data.eval_num_samples": 2,
        "data.datasets": {"spell_backward": {"config": {"min_word_len": 4, "max_word_len": 5}}},
    },
    "variants": {
        "plain": {},
        "shorter": {
            "model.objective.surrogate": "cispo",
            "data.datasets.spell_backward.config": {"min_word_len": 3, "max_word_len": 3},
        },
    },
}
MACHINE = {"cpu": "an abacus", "cores": 2, "threads": 1, "python": "3", "packages": {"torch": "2"}}


@pytest.fixture
def toy(tmp_path) -> Path:
    return written(tmp_path / "toy.yaml")


def written(file: Path, **changes) -> Path:
    file.write_text(yaml.safe_dump({**TOY, **changes}, sort_keys=False))
    return file


def toy_runs(file: Path, seeds=(0,)) -> list[Run]:
    course = Course.read(str(file))
    return courses.runs(course, list(course.variants), seeds, course.seconds, threads=1)


def test_from_the_command_to_the_page(tmp_path, capsys, monkeypatch):
    # Refused only when the run begins: there are no such words.
    bad = {"data.datasets.spell_backward.config": {"min_word_len": 30, "max_word_len": 30}}
    toy = written(tmp_path / "toy.yaml", variants={"plain": {}, "bad": bad})
    page, results = tmp_path / "page.md", tmp_path / "results"
    page.write_text("before\n<!-- toy -->\nold\n<!-- /toy -->\nafter\n")
    words = [str(toy), "--seeds", "3", "--jobs", "2", "--results", str(results), "--page", str(page)]
    assert lab.main(words) == 1
    said = capsys.readouterr().out
    assert "toy: 2 runs, 0 of them done already" in said
    assert "bad, seed 3: FAILED: datasets.spell_backward: nothing left to train on" in said
    assert "\nplain, seed 3: 0." in said
    assert [file.name for file in (results / "toy").iterdir()] == ["plain_seed_3.json"]

    def no_process(*_, **__):
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(crew.subprocess, "Popen", no_process)
    assert lab.main([*words, "--variants", "plain", "--table"]) == 0
    assert "toy: 1 runs, 1 of them done already" in capsys.readouterr().out
    text = page.read_text()
    assert text.startswith("before\n<!-- toy -->\nDoes it run?\n\n| variant | seeds | before | after 0.2 s | after ")
    assert "old" not in text
    assert "![toy: held-out accuracy](page_toy.png)\n<!-- /toy -->\nafter\n" in text
    assert imread(tmp_path / "page_toy.png").size


def test_a_run_is_asked_the_courses_problems_whatever_it_trains_on(toy):
    plain, shorter = toy_runs(toy, seeds=[3])
    assert plain.settings["suite"] == shorter.settings["suite"]
    assert plain.settings["data"]["datasets"] != shorter.settings["data"]["datasets"]
    said = []
    result = run(shorter.settings, said.append)
    assert result["evaluations"] == said
    first, *others = said
    assert (first["step"], first["seconds"], first["sampled"]) == (0, 0, 0)
    assert [e["step"] for e in others] == list(range(1, len(others) + 1))
    assert [e["sampled"] for e in others] == [4 * e["step"] for e in others]
    assert all(e["taught"] <= e["sampled"] and list(e["tasks"]) == ["spell_backward"] for e in said)
    assert said[-1]["seconds"] >= 0.2 > said[-2]["seconds"]
    suite = shorter.settings["suite"]
    tasks = TaskMixture({name: TaskSpec(config=config) for name, config in suite["datasets"].items()})
    assert {len(p.entry["answer"]) for p in eval_problems(tasks, suite["seed"], 20)} == {4, 5}


def test_held_out_problems_are_kept_out_of_training_and_looked_for(toy):
    settings = toy_runs(toy)[1].settings  # trains on other words
    module, data = made(settings, Counting)
    data.trainer = SimpleNamespace(lightning_module=module)
    data.setup("fit")
    referee = Referee(settings, print)
    referee.setup(SimpleNamespace(datamodule=data), module, "fit")
    assert len(referee.problems) == 2
    assert held_out_hashes(referee.problems) <= data.stream.held_out
    groups = SimpleNamespace(batch=SimpleNamespace(problems=referee.problems))
    record = SimpleNamespace(advantages=torch.zeros(2), groups=groups)
    with pytest.raises(RuntimeError, match="a held-out problem was trained on"):
        referee.on_train_batch_end(SimpleNamespace(), module, {"record": record}, None, 0)


def result(seed: int, accuracies: list[float], seconds: list[float], settings: dict | None = None) -> Result:
    points = zip(accuracies, seconds, strict=True)
    evaluations = [
        {"step": n, "seconds": s, "sampled": 10 * n, "taught": 5 * n, "accuracy": a} for n, (a, s) in enumerate(points)
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
    time, completions, _ = standings.measures(found)
    assert (time.title, completions.title) == ("after 3 s", "after 20 completions")
    assert standings.standing(found, "v0", time).mean == pytest.approx(0.305)
    for measure in (time, completions):
        gain = standings.difference(found, "v1", measure)
        assert (gain.mean, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))  # the seeds' own scatter is gone
        assert not gain.within_noise
    assert standings.difference({"v0": found["v0"][:1], "v1": found["v1"]}, "v1", time) is None


def test_the_table_says_what_is_noise():
    found = constructed()
    found["v2"] = [result(s, [0.0, 0.2, 0.4 + 0.05 * (-1) ** s], [0.0, 2.0, 4.0]) for s in range(3)]
    course = Course("made_up", "Which?", 3, 1, {}, {name: {} for name in found})
    lines = standings.table(course, found).splitlines()
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


def test_a_result_of_other_settings_is_refused(toy, tmp_path, capsys):
    run = toy_runs(toy)[0]
    other = json.loads(json.dumps(run.settings))
    other["model"]["learning_rate"] = 5.0
    file = run.file(tmp_path)
    file.parent.mkdir()
    file.write_text(json.dumps({"settings": other, "evaluations": [], "machine": MACHINE}))
    before = file.read_bytes()
    assert lab.main([str(toy), "--seeds", "0", "--results", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "plain_seed_0.json: a result of other settings (model.learning_rate was 5.0 and is 0.001); move it away" in line
    )
    assert file.read_bytes() == before
    file.write_text(json.dumps({"settings": run.settings, "evaluations": [], "machine": MACHINE}))
    assert is_done(run, tmp_path)


def test_runs_that_were_not_asked_the_same_are_not_compared(toy, tmp_path):
    for each, problems in zip(toy_runs(toy), (2, 3), strict=True):
        each.settings["suite"]["problems"] = problems
        file = each.file(tmp_path)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"settings": each.settings, "evaluations": [], "machine": MACHINE}))
        if problems == 2:  # the runs of a course share the dictionary
            assert json.loads(file.read_text())["settings"]["suite"]["problems"] == 2
    with pytest.raises(UserError, match="cannot be compared: suite.problems was 2 and is 3"):
        results_of(Course.read(str(toy)), tmp_path)


def test_half_a_file_is_not_taken_for_a_result(toy, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "plain_seed_0.json").write_text('{"settings": ')
    with pytest.raises(UserError, match="not a result of the laboratory"):
        results_of(Course.read(str(toy)), tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["objectifs"], "'objectifs' is not a course; did you mean objectives? there are: "),
        (["surrogates", "--variants", "sappo"], "surrogates has no variant 'sappo'; did you mean sapo? "),
        (["no/such.yaml"], "'no/such.yaml' is not a course; "),
    ],
)
def test_an_unknown_name_is_one_line(words, message, capsys, tmp_path):
    assert lab.main([*words, "--results", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"model.objective.surogate": "gspo"}, "toy: odd: .*surogate"),
        ({"objective.surrogate": "gspo"}, "toy: odd: .* begins with model. or data."),
        ({"model.learning_rate.x": 1}, "toy: odd: .* learning_rate is a value"),
    ],
)
def test_a_setting_that_there_is_not_is_named_before_any_run(tmp_path, capsys, variant, message):
    file = written(tmp_path / "toy.yaml", variants={"plain": {}, "odd": variant})
    with pytest.raises(UserError, match=message):
        toy_runs(file)
    assert lab.main([str(file), "--results", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 3}, "has the keys about, seconds, every, base, variants"),
        ({"every": "3"}, "every: '3' is not allowed; it must be a number above 0"),
        ({"every": 2.5}, "every: 2.5 is not allowed; it must be a whole number"),
        ({"variants": ["plain"]}, "variants: .* it must be names and values"),
        ({"variants": {"plain": "fast"}}, "plain: 'fast' is not allowed; it must be dotted names and values, or {}"),
        ({"variants": None}, "variants: {} is not allowed; it must be at least one"),
    ],
)
def test_a_file_that_is_no_course_is_refused(tmp_path, changes, message):
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(TOY | changes))
    with pytest.raises(UserError, match=message):
        Course.read(str(file))


def test_what_yaml_leaves_empty_changes_nothing(tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(TOY | {"base": None, "variants": {"plain": None}, "about": None}))
    course = Course.read(str(file))
    assert (course.base, course.variants, course.about) == ({}, {"plain": {}}, "")
    file.write_text("about: [")
    with pytest.raises(UserError, match="toy.yaml: not YAML"):
        Course.read(str(file))


def test_a_variant_must_have_the_tasks_that_all_are_asked(tmp_path):
    file = written(tmp_path / "toy.yaml", variants={"plain": {}, "odd": {"data.datasets": {"chain_sum": {}}}})
    with pytest.raises(UserError, match="toy: odd: data.datasets lacks spell_backward, which all variants are asked"):
        toy_runs(file)


def test_results_of_settings_that_the_course_no_longer_has_are_not_shown(tmp_path):
    file = written(tmp_path / "toy.yaml")
    for each in toy_runs(file):
        each.file(tmp_path).parent.mkdir(exist_ok=True)
        each.file(tmp_path).write_text(json.dumps({"settings": each.settings, "evaluations": [], "machine": MACHINE}))
    assert list(results_of(Course.read(str(file)), tmp_path)) == ["plain", "shorter"]
    written(file, base={**TOY["base"], "model.learning_rate": 0.5})
    with pytest.raises(UserError, match="a result of other settings .model.learning_rate was .* and is 0.5"):
        results_of(Course.read(str(file)), tmp_path)


def test_changes_leave_the_rest_as_it_was():
    before = quickstart()
    after = changed(before, {"data.datasets.chain_sum.config.max_terms": 9}, "here")
    assert before == quickstart()
    assert after["data"]["datasets"]["chain_sum"]["config"] == {
        "min_terms": 3,
        "max_terms": 9,
        "min_digits": 1,
        "max_digits": 2,
    }


def test_the_shipped_courses_are_what_the_page_tells():
    text = (lab.ROOT / "docs" / "laboratory.md").read_text()
    assert courses.names() == ["hard", "objectives", "spelling", "surrogates"]
    assert all(f"<!-- {name} -->\n" in text and f"<!-- /{name} -->" in text for name in courses.names())


@pytest.mark.parametrize("name", ["objectives", "surrogates", "hard", "spelling"])
def test_a_shipped_course_resolves_and_asks_all_variants_the_same(name):
    course = Course.read(name)
    made = courses.runs(course, list(course.variants), [0, 1], course.seconds, threads=1)
    assert [(run.variant, run.seed) for run in made] == [(v, s) for s in (0, 1) for v in course.variants]
    assert all(run.settings["suite"] == made[0].settings["suite"] for run in made)
    assert all(run.settings["model"]["lr_schedule"] == "constant" for run in made)
    assert {run.settings["model"]["seed"] == run.settings["data"]["seed"] == run.seed for run in made} == {True}


def test_when_it_is_stopped_the_runs_end_too(tmp_path, capsys, monkeypatch):
    file, begun = written(tmp_path / "toy.yaml", seconds=600.0), []

    class Watched(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            begun.append(self)

    def interrupt(self, run):
        raise KeyboardInterrupt  # in a thread of the crew, which hands it on

    monkeypatch.setattr(crew.subprocess, "Popen", Watched)
    monkeypatch.setattr(Board, "begin", interrupt)
    assert lab.main([str(file), "--seeds", "0", "--jobs", "1", "--results", str(tmp_path)]) == lab.STOPPED
    assert begun
    assert all(process.wait(timeout=60) != 0 for process in begun)
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "toy").exists()
