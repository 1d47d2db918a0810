"""Help: short and at once for every command; every setting by topic, this project's before Lightning's."""

from __future__ import annotations

import contextlib
import re

import pytest

from rl_lightning.cli import arguments, fit_help
from rl_lightning.cli.main import main
from rl_lightning.cli.read_only import settings_parser
from rl_lightning.export.llama_cpp import QUANTISATIONS
from rl_lightning.policy.config import DTYPES

VERBS = ["fit", "validate", "compare", "report", "plan", "chat", "export", "push", "serve", "tasks"]


def said(capsys, *args: str) -> str:
    with contextlib.suppress(SystemExit):  # argparse's own
        assert main(args) == 0
    return capsys.readouterr().out


def settings() -> list[str]:
    names = [fit_help.setting_of(action) for action in settings_parser("fit")._actions]
    return [name for name in names if name and name != "help"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_short_help_with_two_examples(capsys, verb):
    text = said(capsys, verb, "--help")
    assert said(capsys, verb, "-h") == said(capsys, "help", verb) == text
    assert len(text.splitlines()) <= 60
    assert len(re.findall(rf"^  python -m rl_lightning {verb} ", text, re.MULTILINE)) == 2


def test_plan_names_its_own_options(capsys):
    assert {"--vram", "--cards"} <= set(said(capsys, "plan", "--help").split())


def test_every_setting_is_in_one_topic_and_in_the_reference(capsys):
    names, text = settings(), said(capsys, "fit", "--help", "all")
    shown = re.findall(r"^  (?:-c CONFIG, )?--([\w.]+)", text, re.MULTILINE)
    assert sorted(shown) == sorted(names)
    assert {fit_help.topic_of(name) for name in names} == set(fit_help.TOPICS)
    assert text.index("--fixed_eval.samples ") < text.index("--trainer.accelerator ")


def test_the_overview_names_settings_that_exist(capsys):
    text, names = said(capsys, "fit", "--help"), settings()
    named = set(re.findall(r"^  --([\w.]+?)(?:\.TASK\.KEY)?[-+]?[= ]", text, re.MULTILINE)) - {"SETTING"}
    assert len(named) > 12
    assert named <= set(names)
    assert set(re.findall(r"^  (\w+) {2,}\S", text, re.MULTILINE)) == set(fit_help.TOPICS)


def test_one_topic_and_one_setting(capsys):
    sampling = said(capsys, "fit", "--help", "sampling")
    assert "G, completions per prompt; at least 2" in " ".join(sampling.split())
    assert "--model.policy" not in sampling
    assert "--trainer" in said(capsys, "validate", "--help=trainer")
    one = said(capsys, "fit", "--help", "model.sampling.top_p")
    assert "--model.sampling.top_p" in one
    assert "temperature" not in one
    assert "epsilon" in said(capsys, "fit", "--model.objective.surrogate.help", "GSPO")


def test_a_mistyped_topic_is_one_line(capsys):
    assert main(["fit", "--help", "smapling"]) == 2
    assert "did you mean sampling?" in capsys.readouterr().err
    assert main(["fit", "--help", "top_k"]) == 2
    assert "did you mean model.sampling.top_k?" in capsys.readouterr().err


def test_choices_are_those_that_there_are():
    from rl_lightning.cli.export import FORMATS

    assert tuple(FORMATS) == arguments.FORMATS
    assert tuple(DTYPES) == arguments.DTYPES
    assert tuple(QUANTISATIONS) == arguments.QUANTISATIONS
