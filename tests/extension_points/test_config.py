"""An engine and an environment of one's own, chosen by their paths in a config."""

from __future__ import annotations

import re

import pandas as pd
import yaml

from rl_lightning.cli.main import main
from tests.conftest import ROOT


def test_a_config_names_an_engine_and_an_environment(tmp_path, monkeypatch):
    """The environment is the example of docs/architecture.md, in a module that worker processes import too."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Addition" in block)
    (tmp_path / "documented_environment.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    engine = {
        "class_path": "tests.extension_points.replay.ReplayEngine",
        "init_args": {"texts": ["<answer>7</answer>", "no"]},
    }
    environment = {"class_path": "documented_environment.Addition", "init_args": {"digits": 1}}
    config = {
        "trainer": {"accelerator": "cpu", "max_steps": 1, "default_root_dir": str(tmp_path / "run")},
        "model": {"engine": engine, "sampling": {"num_generations": 2, "max_new_tokens": 16}},
        "data": {
            "datasets": {"addition": {"environment": environment}},
            "prompts_per_step": 4,
            "num_workers": 1,
            "eval_num_samples": 3,
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["plan", "--config", str(tmp_path / "config.yaml")]) == 0
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 0
    rollouts = pd.read_parquet(tmp_path / "run" / "rollouts")
    assert set(rollouts.completion) == {"<answer>7</answer>", "no"}
    assert all(re.fullmatch(r"What is \d \+ \d\?", prompt) for prompt in rollouts.prompt)
    right = [float(e == a) for e, a in zip(rollouts.expected, rollouts.answer, strict=True)]
    assert list(rollouts.exact) == right
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["data"]["datasets"]["addition"]["environment"] == environment
