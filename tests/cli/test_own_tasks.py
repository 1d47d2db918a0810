"""Tasks of one's own on the command line: from a file to a trained policy, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rl_lightning.cli.main import main

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture
def config(tmp_path):
    rows = [{"question": f"What is {n} + {n}?", "answer": f"twice {n}\n#### {2 * n:,}"} for n in range(480, 520)]
    (tmp_path / "doubles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = {
        "path": str(tmp_path / "doubles.jsonl"),
        "answer_pattern": "#### (?P<answer>.+)",
        "verifier": {"class_path": "Number"},
    }
    config = yaml.safe_load(QUICKSTART.read_text())
    config["data"] |= {"eval_num_samples": 4, "prompts_per_step": 2, "num_workers": 1}
    config["data"]["datasets"] = {"doubles": file}
    config["model"]["sampling"] |= {"num_generations": 2}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_task_and_what_its_verifier_says_are_shown(config, capsys):
    of = ["tasks", "doubles", "--config", str(config)]
    assert main(of) == 0
    shown = capsys.readouterr().out
    assert "doubles.jsonl: 40 questions, verified by Number" in shown
    assert shown.count("Answer: ") == 2
    expected = shown.rpartition("Answer: ")[2].strip()
    for answer, said in ((expected, "right, 1.00"), (f"**{expected}**", "right, 1.00"), ("7", "wrong, 0.00")):
        assert main([*of, "--check", answer, "--index", "1"]) == 0
        out = capsys.readouterr().out
        assert f"score   {said} of 1; expected: {expected}" in out
        assert ("also as" in out) == ("*" in answer)
    assert main(["tasks", "chain_sum", "--check", "no number"]) == 0
    assert "score   wrong, 0.00 of 1" in capsys.readouterr().out


def test_a_policy_is_trained_on_a_file(config, tmp_path, capsys):
    root = tmp_path / "run"
    assert main(["fit", "--config", str(config), f"--trainer.default_root_dir={root}", "--trainer.max_steps=2"]) == 0
    assert "on 4 held-out problems" in capsys.readouterr().out
    assert json.loads((root / "eval_results" / "suite.json").read_text())["datasets"]["doubles"]["verifier"].startswith(
        "Number"
    )


@pytest.mark.parametrize("command", ["fit", "tasks"])
def test_a_file_that_is_not_there_is_one_line(config, tmp_path, capsys, command):
    (tmp_path / "doubles.jsonl").unlink()
    words = ["fit", "--config", str(config), f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert main(words if command == "fit" else ["tasks", "doubles", "--config", str(config)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    place = f"{config}, line 5: "
    missing = f"datasets.doubles: {tmp_path / 'doubles.jsonl'}: No such file or directory"
    assert error in (f"error: {missing}", f"error: {place}{missing}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--check", "5"], "this is about one task; name it"),
        (["chain_sum", "--index", "1"], "--index is the number of a problem, 0 or more, and needs --check"),
        (["chain_sum", "--check", "5", "--index", "-1"], "--index is the number of a problem"),
        (["nothing", "--check", "5"], "nothing"),
    ],
)
def test_mistakes_are_one_line(words, said, capsys):
    assert main(["tasks", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_levels_of_ones_own_class_are_shown(tmp_path, capsys):
    config = tmp_path / "own.yaml"
    tasks = {
        "boxes": {"class_path": "tests.own_boxes.Boxes"},
        "chain_sum": {"levels": [{"max_terms": 3}, {"max_terms": 4}]},
    }
    config.write_text(yaml.safe_dump({"data": {"datasets": tasks}}))
    assert main(["tasks", "boxes", "--levels", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "Level 0: most: 3" in out
    assert "Level 2: most: 6 -> 9" in out
    assert main(["tasks", "chain_sum", "--config", str(config), "--levels"]) == 0
    assert "Level 1: max_terms: 3 -> 4" in capsys.readouterr().out
