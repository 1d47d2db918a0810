"""Changes of single tasks on the command line: each on what the words before it have made, and as config.yaml keeps it."""

from __future__ import annotations

import pytest
import yaml

from rl_lightning.cli.main import main
from rl_lightning.cli.read_only import PromptCommandLine

QUICKSTART = {"basic_arithmetic", "chain_sum", "leg_counting", "spell_backward"}


@pytest.fixture
def tasks(monkeypatch, tmp_path):
    """The tasks that a command line has, as `fit` would be given them."""
    monkeypatch.chdir(tmp_path)

    def read(*words):
        monkeypatch.setattr("sys.argv", ["rl_lightning", "fit", "--config", "quickstart", *words])
        return PromptCommandLine().settings.datasets

    return read


def test_one_value_of_one_task_is_changed_and_all_others_stay(tasks):
    before, after = tasks(), tasks("--data.datasets.chain_sum.config.max_terms=6")
    assert after["chain_sum"].config == {"min_terms": 3, "max_terms": 6, "min_digits": 1, "max_digits": 2}
    assert {**after, "chain_sum": 0} == {**before, "chain_sum": 0}
    assert list(after) == list(before)  # which task a slot draws depends on their order


def test_changes_are_made_one_after_the_other(tasks):
    first = "--data.datasets.chain_sum.weight=2"
    found = tasks(first, "--data.datasets.chain_sum.config.max_terms", "6", "--data.datasets.chain_sum.weight=3")
    assert (found["chain_sum"].weight, found["chain_sum"].config["max_terms"]) == (3.0, 6)
    found = tasks(first, "--data.datasets.chain_sum.config.max_terms=6")
    assert (found["chain_sum"].weight, found["chain_sum"].config["min_terms"]) == (2.0, 3)
    whole = tasks(first, "--data.datasets.chain_sum={config: {max_terms: 5}}")["chain_sum"]
    assert (whole.weight, whole.config) == (1.0, {"max_terms": 5})


def test_a_task_is_added_and_taken_out_by_one_word(tasks):
    assert set(tasks("--data.datasets+=products")) == QUICKSTART | {"products"}
    assert set(tasks("--data.datasets-=chain_sum")) == QUICKSTART - {"chain_sum"}
    found = tasks(
        "--data.datasets-=[chain_sum, leg_counting]", "--data.datasets+={gcd: {weight: 3}}", "--data.datasets+=lcm"
    )
    assert {name: spec.weight for name, spec in found.items()} == {
        "basic_arithmetic": 1.0,
        "spell_backward": 1.0,
        "gcd": 3.0,
        "lcm": 1.0,
    }


def test_a_later_config_replaces_what_earlier_words_have_changed(tasks):
    found = tasks("--data.datasets+=products", "--config", "tasks/logic", "--data.datasets.aiw.weight=2")
    assert "products" not in found
    assert "chain_sum" not in found
    assert (found["aiw"].weight, found["syllogism"].weight) == (2.0, 1.0)


def test_settings_of_a_task_of_ones_own_are_changed_too(tasks, tmp_path):
    (tmp_path / "m.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n{"question": "1 + 2", "answer": "3"}\n')
    found = tasks(
        "--data.datasets+={mine: {path: m.jsonl, verifier: Number}}",
        "--data.datasets.mine.verifier.init_args.tolerance=0.1",
    )
    assert found["mine"].verifier.tolerance == 0.1
    made = "--data.datasets+={r: {class_path: ReasoningGymTask, init_args: {name: gcd, config: {}}}}"
    assert tasks(made, "--data.datasets.r.init_args.name=lcm")["r"].environment.name == "lcm"


def test_config_yaml_has_the_tasks_as_they_were_changed(tasks, tmp_path, capsys):
    words = [
        "--data.datasets.chain_sum.config.max_terms=6",
        "--data.datasets-=leg_counting",
        "--data.datasets+=products",
    ]
    with pytest.raises(SystemExit):
        main(["fit", "--config", "quickstart", *words, "--print_config"])
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())["data"]["datasets"]
    assert list(written) == ["basic_arithmetic", "chain_sum", "spell_backward", "products"]
    assert written["chain_sum"]["config"]["max_terms"] == 6
    assert tasks("--config", "config.yaml") == tasks(*words)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "--data.datasets.chain_sun.weight=2",
            "no task 'chain_sun' is in the run; did you mean chain_sum? there are basic",
        ),
        ("--data.datasets.gcd.weight=2", "no task 'gcd' is in the run; --data.datasets+=gcd adds a task"),
        ("--data.datasets.chain_sum.wieght=2", "data.datasets.chain_sum.wieght: no such setting; did you mean weight?"),
        ("--data.datasets.chain_sum.max_terms=2", "did you mean --data.datasets.chain_sum.config.max_terms?"),
        (
            "--data.datasets.chain_sum.config.max_term=2",
            "chain_sum.config.max_term: no such key; did you mean max_terms",
        ),
        ("--data.datasets.chain_sum.weight=heavy", "chain_sum.weight: 'heavy' is not allowed; it must be a number"),
        ("--data.datasets.chain_sum.weight.x=2", "chain_sum.weight: is 1.0, with nothing below it"),
        ("--data.datasets-=chain_sun", "no task 'chain_sun' is in the run; did you mean chain_sum?"),
        ("--data.datasets-=[basic_arithmetic,chain_sum,leg_counting,spell_backward]", "no task is left"),
        ("--data.datasets+=chain_sum", "chain_sum is there already; change it by --data.datasets.chain_sum.KEY=VALUE"),
        ("--data.datasets+=chain_sun", "datasets.chain_sun: no such task; did you mean chain_sum"),
        ("--data.datasets+=3", "is not the name of a task"),
    ],
)
def test_a_mistaken_change_is_one_line(word, said, tmp_path, capsys):
    assert main(["fit", "--config", "quickstart", f"--trainer.default_root_dir={tmp_path}", word]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "quickstart.yaml" not in error  # the word is wrong, not the file
    assert len(error.splitlines()) == 1


def test_a_change_before_its_config_is_refused(capsys):
    assert main(["fit", "--data.datasets.chain_sum.weight=2", "--config", "quickstart"]) == 2
    assert "no tasks are given before it; put it after --config" in capsys.readouterr().err
