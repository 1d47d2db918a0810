"""Experiments and results in files: what is refused, and that the shipped ones are those of docs/ablations.md."""

from __future__ import annotations

import json
from pathlib import Path

import ablations
import pytest
import yaml
from ablation import experiments, tables
from ablation.experiments import Experiment, with_changes
from ablation.results import is_done, results_of
from benchmark.learning import quickstart

from rl_lightning.types import UserError
from tests.scripts.toy_experiment import MACHINE, TOY, toy_runs, written


@pytest.fixture
def toy(tmp_path) -> Path:
    return written(tmp_path / "toy.yaml")


def test_a_result_of_other_settings_is_refused(toy, tmp_path, capsys):
    run = toy_runs(toy)[0]
    other = json.loads(json.dumps(run.settings))
    other["model"]["learning_rate"] = 5.0
    file = run.file(tmp_path)
    file.parent.mkdir()
    file.write_text(json.dumps({"settings": other, "evaluations": [], "machine": MACHINE}))
    before = file.read_bytes()
    assert ablations.main([str(toy), "--seeds", "0", "--results", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "plain_seed_0.json: a result of other settings (model.learning_rate was 5.0 and is 0.001); move it away" in line
    )
    assert file.read_bytes() == before
    file.write_text(json.dumps({"settings": run.settings, "evaluations": [], "machine": MACHINE}))
    assert is_done(run, tmp_path)


def test_runs_that_were_not_evaluated_on_the_same_problems_are_not_compared(toy, tmp_path):
    for each, problems in zip(toy_runs(toy), (2, 3), strict=True):
        each.settings["suite"]["problems"] = problems
        file = each.file(tmp_path)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"settings": each.settings, "evaluations": [], "machine": MACHINE}))
        if problems == 2:  # the runs of an experiment share the dictionary
            assert json.loads(file.read_text())["settings"]["suite"]["problems"] == 2
    with pytest.raises(UserError, match="cannot be compared: suite.problems was 2 and is 3"):
        results_of(Experiment.read(str(toy)), tmp_path)


def test_half_a_file_is_not_taken_for_a_result(toy, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "plain_seed_0.json").write_text('{"settings": ')
    with pytest.raises(UserError, match="not a run's result"):
        results_of(Experiment.read(str(toy)), tmp_path)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"model.objective.surogate": "GSPO"}, "toy: odd: .*surogate"),
        ({"objective.surrogate": "GSPO"}, "toy: odd: .* begins with model. or data."),
        ({"model.learning_rate.x": 1}, "toy: odd: .* learning_rate is a value"),
    ],
)
def test_a_setting_that_does_not_exist_is_named_before_any_run(tmp_path, capsys, variant, message):
    file = written(tmp_path / "toy.yaml", variants={"plain": {}, "odd": variant})
    with pytest.raises(UserError, match=message):
        toy_runs(file)
    assert ablations.main([str(file), "--results", str(tmp_path)]) == 2
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
def test_a_file_that_is_no_experiment_is_refused(tmp_path, changes, message):
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(TOY | changes))
    with pytest.raises(UserError, match=message):
        Experiment.read(str(file))


def test_what_yaml_leaves_empty_changes_nothing(tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(TOY | {"base": None, "variants": {"plain": None}, "about": None}))
    experiment = Experiment.read(str(file))
    assert (experiment.base, experiment.variants, experiment.about) == ({}, {"plain": {}}, "")
    file.write_text("about: [")
    with pytest.raises(UserError, match="toy.yaml: not YAML"):
        Experiment.read(str(file))


def test_a_variant_must_have_the_tasks_that_all_are_evaluated_on(tmp_path):
    file = written(tmp_path / "toy.yaml", variants={"plain": {}, "odd": {"data.datasets": {"chain_sum": {}}}})
    with pytest.raises(
        UserError, match="toy: odd: data.datasets lacks spell_backward, on which all variants are evaluated"
    ):
        toy_runs(file)


def test_results_of_settings_that_the_experiment_no_longer_has_are_not_shown(tmp_path):
    file = written(tmp_path / "toy.yaml")
    for each in toy_runs(file):
        each.file(tmp_path).parent.mkdir(exist_ok=True)
        each.file(tmp_path).write_text(json.dumps({"settings": each.settings, "evaluations": [], "machine": MACHINE}))
    assert list(results_of(Experiment.read(str(file)), tmp_path)) == ["plain", "shorter"]
    written(file, base={**TOY["base"], "model.learning_rate": 0.5})
    with pytest.raises(UserError, match="a result of other settings .model.learning_rate was .* and is 0.5"):
        results_of(Experiment.read(str(file)), tmp_path)


def test_changes_leave_the_rest_as_it_was():
    before = quickstart()
    after = with_changes(before, {"data.datasets.chain_sum.config.max_terms": 9}, "here")
    assert before == quickstart()
    assert after["data"]["datasets"]["chain_sum"]["config"] == {
        "min_terms": 3,
        "max_terms": 9,
        "min_digits": 1,
        "max_digits": 2,
    }


def test_the_shipped_experiments_are_those_of_the_page():
    text = (ablations.ROOT / "docs" / "ablations.md").read_text()
    assert experiments.names() == ["hard", "objectives", "spelling", "surrogates"]
    assert all(f"<!-- {name} -->\n" in text and f"<!-- /{name} -->" in text for name in experiments.names())


@pytest.mark.parametrize("name", ["objectives", "surrogates", "hard", "spelling"])
def test_a_shipped_experiment_resolves_and_evaluates_all_variants_on_the_same_problems(name):
    experiment = Experiment.read(name)
    made = experiments.runs(experiment, list(experiment.variants), [0, 1], experiment.seconds, threads=1)
    assert [(run.variant, run.seed) for run in made] == [(v, s) for s in (0, 1) for v in experiment.variants]
    assert all(run.settings["suite"] == made[0].settings["suite"] for run in made)
    assert all(run.settings["model"]["lr_schedule"] == "constant" for run in made)
    assert {run.settings["model"]["seed"] == run.settings["data"]["seed"] == run.seed for run in made} == {True}


@pytest.mark.parametrize("name", ["objectives", "surrogates", "hard", "spelling"])
def test_the_pages_tables_are_those_of_the_committed_results(name):
    """Results whose settings are not the experiment's of today are refused; see above."""
    experiment, docs = Experiment.read(name), ablations.ROOT / "docs"
    found = results_of(experiment, docs / "results" / "ablations")
    assert list(found) == list(experiment.variants)
    section = (docs / "ablations.md").read_text().partition(f"<!-- {name} -->\n")[2].partition("\n\n![")[0]
    assert tables.table(experiment, found) == section
