"""A mistake in a setting is one line: the file and line it is in, what is allowed, and the nearest right name."""

from __future__ import annotations

import pytest

from rl_lightning.cli.main import main


@pytest.fixture
def line(capsys, tmp_path, monkeypatch):
    """The one line that a mistake gets."""
    monkeypatch.chdir(tmp_path)

    def refused(*words: str) -> str:
        assert main([*words]) == 2
        (said,) = (each for each in capsys.readouterr().err.splitlines() if each.startswith("error: "))
        assert not (tmp_path / "outputs").exists()
        return said.removeprefix("error: ")

    return refused


FIT = ("fit", "--config", "quickstart")
CLASSES = "name one that ships (fit --model.reward.help CLASS shows it), or give the path of your own class"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fit",), "no tasks are given: name a config, such as --config quickstart"),
        (("fit", "quickstart"), "'quickstart' belongs to no setting; did you mean --config quickstart?"),
        (("fit", "--confg", "quickstart"), "--confg: no such setting; did you mean --config?"),
        ((*FIT, "--trainer.max_step=9"), "--trainer.max_step: no such setting; did you mean --trainer.max_steps?"),
        (
            (*FIT, "--trainer.max_step", "9"),
            "did you mean --trainer.max_steps? `fit --help trainer` shows what there is",
        ),
        ((*FIT, "--max_steps=9"), "did you mean --trainer.max_steps?"),
        (("export", "outputs/run", "--to", "x", "--formt", "merged"), "--formt; did you mean --format?"),
        ((*FIT, "--fixed_evl.samples=5"), "did you mean --fixed_eval.samples? `fit --help evaluation`"),
        (
            (*FIT, "--model.objective.loss_type=drgrpo"),
            "model.objective.loss_type: 'drgrpo' is not allowed; it must be grpo, dr_grpo, dapo or bnpo; did you mean dr_grpo?",
        ),
        (
            (*FIT, "--model.reward", "WeightedRewrd"),
            f"model.reward: there is no class 'WeightedRewrd'; did you mean WeightedReward? Else {CLASSES}",
        ),
        (
            (*FIT, "--model.reward.init_args.exakt=1"),
            "model.reward.exakt: no such setting; did you mean exact? there are exact, partial, format, format_grading",
        ),
        (
            (*FIT, "--data.curriculum.lo=0.1"),
            "data.curriculum.lo: no such setting; did you mean low? there are low, high",
        ),
        ((*FIT, "--trainer.max_steps=many"), "trainer.max_steps: 'many' is not allowed; it must be a whole number"),
        (
            (*FIT, "--data.prompts_per_step=null"),
            "data.prompts_per_step: null is not allowed; it must be a whole number",
        ),
        (
            ("plan", "--config", "quickstart", "--vrma", "8"),
            "plan: unrecognized arguments: --vrma; did you mean --vram?",
        ),
        (
            ("export", "outputs/run", "--to", "x", "--format", "mergd"),
            "export: --format: 'mergd' is not allowed; it must be adapter, merged or gguf; did you mean merged?",
        ),
        (("serve", "x", "--port", "many"), "serve: --port: 'many' is not allowed; it must be a whole number"),
        (("serve", "nothere"), "'nothere' is not a checkpoint directory: it does not exist; name a run, or one of its"),
        (("tasks", "--levles"), "tasks: unrecognized arguments: --levles; did you mean --levels?"),
        (("report", "outputs/run", "--wacth"), "report: unrecognized arguments: --wacth; did you mean --watch?"),
        (("report", "--otu=x.html"), "did you mean --out?"),
        (("report",), "the following arguments are required: RUN; for example: report outputs/quickstart"),
        (("report", "nothere"), "nothere: there is no such directory"),
        (("compare", "one", "two", "--outt", "x"), "compare: unrecognized arguments: --outt; did you mean --out?"),
        (("compare", "one", "two", "--evalute", "--config", "quickstart"), "did you mean --evaluate?"),
        (("compare", "one"), "compare: takes two or more of"),
        (
            (*FIT, "--data.answer_format=boxd"),
            "or a regular expression with a group (?P<answer>…); did you mean boxed?",
        ),
        (
            (*FIT, "--fixed_eval.samples=1"),
            "fixed_eval.samples: 1 is not allowed; it must be at least 2, or null for greedy",
        ),
        (
            ("fit", "--config", "quikstart.yaml"),
            "--config quikstart.yaml: there is no such file; did you mean quickstart?",
        ),
    ],
)
def test_in_a_word_of_the_command_line(line, words, said):
    assert said in line(*words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "data:\n  promts_per_step: 4\n",
            "line 2: data.promts_per_step: no such setting; did you mean data.prompts_per_step?",
        ),
        (
            "# mine\nmodle:\n  learning_rate: 1\n",
            "line 3: modle.learning_rate: no such setting; did you mean model.learning",
        ),
        ("trainer: {max_steps: ten}\n", "line 1: trainer.max_steps: 'ten' is not allowed; it must be a whole number"),
        (
            "model:\n  policy:\n\n    lora_r: [1]\n",
            "line 4: model.policy.lora_r: '[1]' is not allowed; it must be a whole",
        ),
        (
            "model:\n  reward:\n    class_path: WeightedReward\n    init_args:\n      exakt: 1\n",
            "line 5: model.reward.exakt: no such setting; did you mean exact?",
        ),
        (
            "data:\n  datasets:\n    chain_sum:\n      wieght: 2\n",
            "line 4: data.datasets.chain_sum.wieght: no such setting;",
        ),
        ("data:\n  datasets:\n    chain_sun: {}\n", "line 3: datasets.chain_sun: no such task; did you mean chain_sum"),
        ("data:\n  prompts_per_step: 0\n", "line 2: data.prompts_per_step: 0 is not allowed; it must be at least 1"),
        ("data:\n  prompts_per_step: null\n", "line 2: data.prompts_per_step: null is not allowed; leave it out"),
        ("fixed_eval:\n  samples: 1\n", "line 2: fixed_eval.samples: 1 is not allowed; it must be at least 2, or null"),
        (
            "checkpoint:\n  save_total_limit: 0\n",
            "line 2: checkpoint.save_total_limit: 0 is not allowed; it must be at least 1",
        ),
        ("fixed_eval:\n  temperature: 0\n", "line 2: fixed_eval.temperature: 0.0 is not allowed; it must be above 0"),
        (
            "progress_bar:\n  plain_seconds: -1\n",
            "line 2: progress_bar.plain_seconds: -1.0 is not allowed; it must be 0 or",
        ),
        (
            "checkpoint:\n  save_steps: 7\n  keep_best: true\n",
            "line 2: checkpoint.save_steps: 7 is not allowed; it must be",
        ),
        ("model:\n  sampling: 5\n", "line 2: model.sampling: 5 is not allowed; it must be settings by name"),
        ("model:\n\tlearning_rate: 1\n", "line 2: not YAML: found character '\\t'"),
    ],
)
def test_in_a_config(line, tmp_path, text, said):
    (tmp_path / "own.yaml").write_text(text)
    assert line(*FIT, "--config", "own.yaml").startswith(f"own.yaml, {said}")


def test_a_config_that_is_no_settings(line, tmp_path):
    (tmp_path / "own.yaml").write_text("- 1\n")
    assert line("fit", "--config=own.yaml").startswith("own.yaml: not a config: it must have settings by name")


def test_the_file_is_named_whose_value_counts(line, tmp_path):
    (tmp_path / "a.yaml").write_text("data:\n  prompts_per_step: 0\n")
    (tmp_path / "b.yaml").write_text("# b\ndata:\n  prompts_per_step: -1\n")
    assert line(*FIT, "--config", "a.yaml", "--config", "b.yaml").startswith(
        "b.yaml, line 3: data.prompts_per_step: -1"
    )
    assert line(*FIT, "--config", "a.yaml", "--data.prompts_per_step=-2").startswith("data.prompts_per_step: -2")
