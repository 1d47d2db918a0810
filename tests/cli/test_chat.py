"""chat gives what the run's own evaluation gave, and one line for a mistake."""

from __future__ import annotations

import io
import json
import shutil

import pytest
import yaml

from rl_lightning.cli import chat
from rl_lightning.cli.main import main
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.types import UserError
from tests.conftest import QUICKSTART


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps at a high rate, so that its policy is not the base."""
    root = tmp_path_factory.mktemp("chat") / "run"
    small = {
        "model": {"policy": {"quantization": "none"}, "learning_rate": 0.02, "sampling": {"num_generations": 4}},
        "data": {"prompts_per_step": 4, "eval_num_samples": 3, "num_workers": 0},
    }
    config = root.parent / "small.yaml"
    config.write_text(yaml.safe_dump(small))
    words = ["fit", "--config", str(QUICKSTART), "--config", str(config), "--trainer.max_steps=2"]
    assert main([*words, "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={root}"]) == 0
    return root


def rows(root, step: int) -> dict:
    report = json.loads((root / "eval_results" / f"eval_step_{step}.json").read_text())
    return {(row["task"], row["index"]): row for row in report["rows"]}


def test_the_answer_is_the_evaluations_own(trained, capsys):
    """Of the trained policy by its run or checkpoint, of the base by the config: where they differ."""
    before, after = rows(trained, 0), rows(trained, 2)
    task, index = next(key for key in after if after[key]["completion"] != before[key]["completion"])
    for words, row in (
        (["--ckpt_path", str(trained)], after[task, index]),
        (["--ckpt_path", str(trained / "checkpoint-2")], after[task, index]),
        (["--config", str(trained / "config.yaml")], before[task, index]),
    ):
        assert main(["chat", *words, "--task", task, "--index", str(index)]) == 0
        out = capsys.readouterr().out
        assert row["completion"].partition("<answer>")[2].partition("</answer>")[0] in out
        assert f"tokens  {row['tokens']}" in out
        assert ("score   right" if row["exact"] == 1 else "score   wrong") in out


def test_a_question_comes_from_standard_input(trained, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 3 + 4 - 2?\n"))
    assert main(["chat", "--ckpt_path", str(trained), "--max_new_tokens", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("text    ")
    assert lines[1:] == ["answer  none in the format tags", "tokens  2, truncated at the length limit"]


def prompts_of(monkeypatch) -> list[str]:
    """The prompts that the policy is given from now on."""
    seen, of = [], chat.answer

    def spied(policy, engine, settings, template, problem):
        seen.append(template.text(problem.question, problem.task))
        return of(policy, engine, settings, template, problem)

    monkeypatch.setattr(chat, "answer", spied)
    return seen


def test_lines_are_questions_of_their_own_or_a_conversation(trained, capsys, monkeypatch):
    seen = prompts_of(monkeypatch)
    for words, numbers in (([], 1), (["--lines"], 2), (["--lines", "--conversation"], 2)):
        seen.clear()
        monkeypatch.setattr("sys.stdin", io.StringIO("What is 3 + 4?\n\nWhat is 2 - 1?\n"))
        assert main(["chat", "--ckpt_path", str(trained), *words]) == 0
        answers = capsys.readouterr().out
        assert answers.count("tokens  ") == len(seen) == numbers
    first, second = seen
    assert second.startswith(first)
    assert second.index("3 + 4") < second.index("<answer>") < second.index("2 - 1")


def test_a_merged_export_answers_as_the_run_does(trained, capsys, tmp_path, monkeypatch):
    words = ["--to", str(tmp_path / "merged"), "--format", "merged", "--no-verify"]
    assert main(["export", str(trained), *words]) == 0
    (task, index), row = next(iter(rows(trained, 2).items()))
    capsys.readouterr()
    assert (
        main(
            [
                "chat",
                "--ckpt_path",
                str(tmp_path / "merged"),
                "--config",
                str(trained / "config.yaml"),
                "--task",
                task,
                "--index",
                str(index),
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert row["completion"].partition("<answer>")[2].partition("</answer>")[0] in out
    assert f"tokens  {row['tokens']}" in out
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 3 + 4?\nWhat is 2 - 1?\n"))
    assert main(["chat", "--ckpt_path", str(tmp_path / "merged"), "--lines", "--conversation"]) == 0
    assert capsys.readouterr().out.count("tokens  ") == 2


def test_on_a_terminal_each_line_is_a_question_until_an_empty_one(monkeypatch):
    lines = iter(["one", "two", "", "three"])
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert list(chat.questions()) == ["one", "two"]


def test_mistakes_get_one_line(trained, capfd, tmp_path):
    (tmp_path / "broken.yaml").write_text("model: {policy: {lora_r: many}}")
    (tmp_path / "list.yaml").write_text("- 1")
    shutil.copytree(trained / "checkpoint-2", tmp_path / "alone" / "checkpoint-2")
    base, run = ["--config", str(QUICKSTART)], ["--ckpt_path", str(trained)]
    for words, part in (
        ([], "--config FILE to ask its policy before training"),
        (["--nonsense"], "--nonsense"),
        ([*run, "--index", "3"], "needs --task"),
        ([*base, "--task", "chain_sun"], "did you mean chain_sum"),
        ([*base, "--max_new_tokens", "0"], "at least 1"),
        (["--ckpt_path", str(tmp_path / "nowhere")], "is not a checkpoint directory"),
        (["--ckpt_path", str(tmp_path / "alone" / "checkpoint-2")], "name the settings by --config"),
        (["--config", str(tmp_path / "nowhere.yaml")], "there is no such file"),
        (["--config", str(tmp_path / "broken.yaml")], "lora_r"),
        (["--config", str(tmp_path / "list.yaml")], "not a config of rl_lightning"),
    ):
        assert main(["chat", *words]) == 2, words
        error = capfd.readouterr().err
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert part in line
        assert "Traceback" not in error


def test_answers_are_read_and_scored_in_the_configs_format(capsys, tmp_path):
    """The tiny policy writes tags, on one line."""
    config = yaml.safe_load(QUICKSTART.read_text())
    config["data"]["answer_format"] = "last_line"
    (tmp_path / "lines.yaml").write_text(yaml.safe_dump(config))
    assert main(["chat", "--config", str(tmp_path / "lines.yaml"), "--task", "chain_sum"]) == 0
    out = capsys.readouterr().out
    assert "answer  <think>" in out
    assert "score   wrong" in out


def test_a_task_with_too_few_problems_says_how_many():
    settings = chat.Settings(datasets={"chain_sum": TaskSpec(config={"max_terms": 2, "max_digits": 1})})
    with pytest.raises(UserError, match="chain_sum has only"):
        settings.problem("chain_sum", 400)
