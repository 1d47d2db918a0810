"""README is true: its commands parse, its files exist, its Python runs."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Protocol

import pytest

from rl_lightning.cli import arguments
from rl_lightning.cli.lightning_cli import RLCommandLine
from rl_lightning.cli.main import main
from rl_lightning.distributed import Collective
from rl_lightning.environments.environment import Environment
from rl_lightning.export.formats import Format
from rl_lightning.objective import Surrogate
from rl_lightning.rollout import RolloutEngine
from tests.conftest import ROOT
from tests.report.constructed import write_run
from tests.test_imports import PACKAGES

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
        assert arguments.of_chat(words[1:]).task == "spell_backward"
        return
    if words[0] == "push":
        assert arguments.of_push(words[1:]).dry_run
        return
    if words[0] == "export":
        assert arguments.of_export(words[1:]).format == "merged"
        return
    configs = [word for word in words if word.startswith("configs/")]
    assert configs
    assert all((ROOT / config).is_file() for config in configs)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["rl_lightning", *words, f"--trainer.default_root_dir={tmp_path / 'run'}"])
    monkeypatch.setattr("rl_lightning.cli.lightning_cli.resolve_checkpoint", lambda name, root: Path(name))
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


def test_the_architecture_names_every_room_in_the_order_of_imports():
    """The table that a newcomer reads is the one that tests/test_imports.py holds the code to."""
    table = (ROOT / "docs" / "architecture.md").read_text().split("## Packages")[1].split("## Extension points")[0]
    packages = [
        name.removesuffix(".py").strip("/") for name in re.findall(r"^\| `([a-z_]+(?:/|\.py))` \|", table, re.MULTILINE)
    ]
    assert [*packages, "__main__"] == PACKAGES


@pytest.mark.parametrize("protocol", [RolloutEngine, Environment, Surrogate, Collective, Format])
def test_the_architecture_shows_every_method_of_an_extension_point(protocol):
    text = (ROOT / "docs" / "architecture.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"class {protocol.__name__}(" in b)
    shown = dict(re.findall(r"def (\w+)\(\s*self(.*?)\) ->", block, re.DOTALL))
    methods = {name for name, value in vars(protocol).items() if callable(value) and name not in vars(Protocol)}
    methods -= {"__init__", "__subclasshook__", "__init_subclass__"}
    assert set(shown) == methods - {name for name in methods if name.startswith("__") and name != "__call__"}
    for name, parameters in shown.items():
        expected = [p for p in inspect.signature(getattr(protocol, name)).parameters if p != "self"]
        assert re.findall(r"(\w+):", re.sub(r"\[.*?\]", "", parameters)) == expected, name


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_metric_is_described(monkeypatch):
    """What a run logs is in docs/metrics.md; see also tests/test_training.py, which reads a real run's columns."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    source = "".join(p.read_text() for p in (ROOT / "rl_lightning").rglob("*.py"))
    for name in re.findall(r'"((?:reward|completion|policy|time)/[a-z_]+)"', source):
        assert f"`{name}`" in text, name
