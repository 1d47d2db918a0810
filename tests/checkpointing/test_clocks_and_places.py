"""A clock that is set back, a user without a home, an output that knows only ASCII, a run that starts again with other settings."""

from __future__ import annotations

import ast
import csv
import io
import json
import sys
import tempfile
from pathlib import Path

import yaml

from rl_lightning.checkpointing.cache import cache_directory
from rl_lightning.cli.main import main
from tests.conftest import ROOT
from tests.runs import run

WALL_CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("os.path", "getmtime"),
}
MAY_ASK = {"environments/questions/index.py", "report/page.py"}
"""The age of files that may be made again, and a date that is shown."""


def test_nothing_measures_a_duration_by_a_clock_that_can_be_set():
    found = set()
    for file in (ROOT / "rl_lightning").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and (ast.unparse(node.value), node.attr) in WALL_CLOCKS:
                found.add(file.relative_to(ROOT / "rl_lightning").as_posix())
    assert found == MAY_ASK


def test_a_clock_that_is_set_back_makes_no_negative_durations(tmp_path, monkeypatch):
    clock = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    run(tmp_path, 2)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    durations = [float(value) for row in rows for name, value in row.items() if name.startswith("time/") and value]
    assert durations
    assert min(durations) >= 0
    assert json.loads((tmp_path / "train_results.json").read_text())["seconds"] >= 0


def test_the_cache_of_a_user_without_a_home_is_not_a_directory_named_tilde(monkeypatch):
    for name in ("RL_LIGHTNING_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it does where the user is unknown
    assert cache_directory("products") == Path(tempfile.gettempdir(), "rl_lightning", "products")
    monkeypatch.setenv("RL_LIGHTNING_CACHE", "here")
    assert cache_directory("products") == Path.cwd() / "here" / "products"


def test_an_output_without_a_minus_sign_ends_no_command(tmp_path, monkeypatch):
    """Windows' code page 1252 has none, nor what a model wrote in Chinese."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    monkeypatch.setattr("rl_lightning.cli.main._COMMANDS", {"report": lambda args: print("a \N{MINUS SIGN} 模")})
    assert main(["report"]) == 0
    sys.stdout.flush()
    assert written.getvalue().split() == [b"a", rb"\u2212", rb"\u6a21"]


def test_a_run_in_a_long_path_in_other_scripts_is_resumed(tmp_path):
    root = tmp_path / "läuf 模型 🙂" / ("x" * 200) / ("y" * 200)
    run(root, 2)
    run(root, 3, ckpt_path=str(root / "checkpoint-2" / "trainer.ckpt"))
    assert (root / "checkpoint-3" / "trainer.ckpt").is_file()


def test_a_run_that_starts_again_with_other_settings_is_described_by_these(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("left by a run that was killed before its first checkpoint\n")
    tiny = ["--model.sampling.num_generations=2", "--model.sampling.max_new_tokens=4", "--data.prompts_per_step=1"]
    command = ["fit", "--config", "quickstart", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1"]
    more = ["--data.eval_num_samples=1", "--data.num_workers=0", "--trainer.enable_progress_bar=false"]
    assert main([*command, *tiny, *more, "--model.learning_rate=0.123", "--ckpt_path=last"]) == 0
    assert "starting from the beginning" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["model"]["learning_rate"] == 0.123
    assert not (tmp_path / "config_2.yaml").exists()
