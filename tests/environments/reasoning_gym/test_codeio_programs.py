"""Problems of codeio are made without reaching out of the process, wherever they are made."""

from __future__ import annotations

import os
import random

import pytest
from reasoning_gym.code.codeio import CodeIODataset

from rl_lightning.environments.reasoning_gym.codeio_programs import leave_out_programs
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask

PLAIN = {"code_sample": "def main_solution(x):\n    return x  # reopen (x)", "input_generator": "import random"}


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "from os import path",
        "subprocess.run(['ls'])",
        "import urllib.request",
        "frame.to_csv('a.csv')",
        "name = input ('name? ')",
        "with open(name) as file:",
    ],
)
def test_a_program_that_reaches_out_is_left_out(monkeypatch, line):
    program = {"code_sample": f"def main_solution(x):\n    {line}\n", "input_generator": ""}
    monkeypatch.setattr(CodeIODataset, "_jsonl_data", [program, PLAIN])
    leave_out_programs()
    assert CodeIODataset._jsonl_data == [PLAIN]


@pytest.mark.parametrize("name", ["codeio", "composite"])
def test_no_problem_writes_a_file_or_changes_the_environment(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    config = {"datasets": [{"name": "codeio"}]} if name == "composite" else {}
    task = ReasoningGymTask(name, config)
    assert 2_900 < len(CodeIODataset._jsonl_data) < 2_950
    for seed in range(40 if name == "codeio" else 3):
        task.item(seed)
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before


def test_a_program_of_upstreams_that_writes_is_not_drawn(tmp_path, monkeypatch):
    """Without the rule the seed's program writes."""
    monkeypatch.chdir(tmp_path)
    task = ReasoningGymTask("codeio", {})
    kept = CodeIODataset._jsonl_data
    dataset = task._dataset
    CodeIODataset(dataset.config)  # loads all again
    everything = CodeIODataset._jsonl_data
    seed = next(s for s in range(10**5) if "planet.com" in random.Random(s).choice(everything)["code_sample"])
    ReasoningGymTask.item(task, seed)
    assert [path.name for path in tmp_path.iterdir()] == ["planet.com"]
    (tmp_path / "planet.com").unlink()
    CodeIODataset._jsonl_data = kept
    task.item(seed)
    assert list(tmp_path.iterdir()) == []
