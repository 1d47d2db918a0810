"""README is true: its commands parse, its files exist, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rl_lightning.chat import arguments
from rl_lightning.cli import main
from rl_lightning.lightning_cli import RLCommandLine
from tests.conftest import ROOT
from tests.report.constructed import write_run

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("python ")
]


def test_the_first_two_commands_are_quickstart_and_test():
    assert COMMANDS[:2] == ["python scripts/start.py quickstart", "python scripts/start.py test"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if "rl_lightning " in c or "start.py fit" in c])
def test_a_command_line_is_understood(command, monkeypatch, tmp_path, capsys):
    words = shlex.split(command)
    words = words[words.index("rl_lightning" if "rl_lightning" in words else "scripts/start.py") + 1 :]
    if words[0] in ("tasks", "plan"):
        assert main(words) == 0
        assert capsys.readouterr().out
        return
    if words[0] == "compare":
        monkeypatch.chdir(tmp_path)  # where there is nothing to compare
        assert main(words) == 2
        assert f"{words[1]!r} is neither a run directory" in capsys.readouterr().err
        return
    if words[0] == "report":
        write_run(tmp_path / "outputs" / "quickstart", steps=2, evaluations=())
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("rl_lightning.report.watch.PageServer.serve_forever", lambda self: None)
        assert main(words) == 0
        return
    if words[0] == "chat":
        assert arguments(words[1:]).task == "spell_backward"
        return
    configs = [word for word in words if word.startswith("configs/")]
    assert configs
    assert all((ROOT / config).is_file() for config in configs)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["rl_lightning", *words, f"--trainer.default_root_dir={tmp_path / 'run'}"])
    monkeypatch.setattr("rl_lightning.lightning_cli.resolve_checkpoint", lambda name, root: Path(name))
    monkeypatch.setattr(RLCommandLine, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(RLCommandLine, "_run_subcommand", lambda self, subcommand: None)
    assert RLCommandLine().subcommand == words[0]


def test_the_python_example_trains(monkeypatch, tmp_path):
    """As written, but for two steps and without worker processes."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = code.replace("max_steps=40", "max_steps=2").replace("max_new_tokens=72", "max_new_tokens=8")
    code = code.replace('system_prompt=""', 'system_prompt="", num_workers=0, eval_num_samples=3')
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "outputs/api/checkpoint-2/adapter_model.safetensors").is_file()
    assert (tmp_path / "outputs/api/eval_results/eval_step_2.json").is_file()


def test_the_layout_is_the_tree():
    """Every file that the layout names exists, and every module of the package is named."""
    layout = README.split("## Layout")[1]
    named = set(re.findall(r"\b([a-z_]+\.py)\b", layout))
    modules = {p.name for p in (ROOT / "rl_lightning").rglob("*.py")} | {
        p.name for p in (ROOT / "scripts").glob("*.py")
    }
    assert named <= modules
    unnamed = {
        "__init__.py",
        "__main__.py",
        "config.py",
        "descriptions.py",
        "whole_files.py",
        "run_files.py",
        "learning_curve.py",
    }
    rules = {name for name in modules if name.startswith("answer_")}  # answer_checks.py is named for all
    assert modules - named <= unnamed | rules


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_metric_is_described(monkeypatch):
    """What a run logs is in docs/metrics.md; see also tests/test_training.py, which reads a real run's columns."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    source = "".join(p.read_text() for p in (ROOT / "rl_lightning").glob("*.py"))
    for name in re.findall(r'"((?:reward|completion|policy|time)/[a-z_]+)"', source):
        assert f"`{name}`" in text, name
