"""A config that ships is named without its path, from any directory; the user's own file goes before it."""

from __future__ import annotations

import pytest

from rl_lightning.cli import arguments
from rl_lightning.cli.main import main
from rl_lightning.cli.read_only import PromptCommandLine
from rl_lightning.cli.shipped_configs import config_file, shipped_configs, with_config_files
from rl_lightning.types import UserError
from tests.conftest import QUICKSTART, ROOT


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_names_are_paths_below_configs_without_the_ending():
    assert shipped_configs()["quickstart"] == QUICKSTART
    assert shipped_configs()["tasks/logic"] == ROOT / "configs" / "tasks" / "logic.yaml"
    assert len(shipped_configs()) == len(list((ROOT / "configs").rglob("*.yaml")))


def test_words_of_a_command_line():
    words = ["fit", "--config", "quickstart", "-c", "tasks/logic", "--config=qwen2.5-3b", "--data.seed", "quickstart"]
    assert with_config_files(words) == [
        "fit",
        "--config",
        str(QUICKSTART),
        "-c",
        str(ROOT / "configs/tasks/logic.yaml"),
        f"--config={ROOT / 'configs/qwen2.5-3b.yaml'}",
        "--data.seed",
        "quickstart",
    ]
    assert with_config_files(["fit", "--config"]) == ["fit", "--config"]


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml"])
def test_a_file_in_the_present_directory_goes_first(name, tmp_path):
    (tmp_path / name).write_text("seed_everything: 5")
    assert config_file("quickstart") == name


@pytest.mark.parametrize("value", ["/nowhere/quickstart", "{seed_everything: 3}", "seed_everything: 3", ""])
def test_what_is_no_name_is_left_to_the_parser(value):
    assert config_file(value) == value


def test_a_file_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match="^--config nowhere.yaml: there is no such file$"):
        config_file("nowhere.yaml")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("quikstart", ["--config quikstart", "did you mean quickstart?"]),
        ("qwen2.5-3", ["qwen2.5-3b"]),
        ("task/logic", ["did you mean tasks/logic"]),
        ("zzzz", ["there are", "quickstart", "tasks/logic"]),
    ],
)
def test_an_unknown_name_is_one_line_with_the_near_ones(name, parts):
    with pytest.raises(UserError) as caught:
        config_file(name)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--config", "quikstart"],
        ["validate", "--config=quikstart"],
        ["plan", "--config", "quikstart", "--vram", "8"],
        ["tasks", "chain_sum", "--prompt", "--config", "quikstart"],
        ["chat", "--config", "quikstart"],
        ["export", "run", "--to", "there", "--format", "adapter", "--config", "quikstart"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_knows_the_names(words, capfd, tmp_path):
    assert main(words) == 2
    assert capfd.readouterr().err.startswith("error: --config quikstart: no config of this name ships")
    assert not list(tmp_path.iterdir())


def test_commands_read_the_config_of_the_name(capsys, monkeypatch):
    assert main(["plan", "--config", "qwen2.5-0.5b", "--vram", "8"]) == 0
    assert "Qwen2.5-0.5B" in capsys.readouterr().out
    assert main(["tasks", "chain_sum", "--config", "quickstart"]) == 0
    assert arguments.of_chat(["--config", "quickstart"]).config == QUICKSTART
    words = ["run", "--to", "there", "--format", "adapter", "--config", "quickstart"]
    assert arguments.of_export(words).config == QUICKSTART
    monkeypatch.setattr("sys.argv", ["rl_lightning", "fit", "--config", "quickstart", "--config", "tasks/logic"])
    assert "spell_backward" not in PromptCommandLine().settings.datasets  # the later file replaces them
