"""Comparing evaluations that were written as a run writes them."""

from __future__ import annotations

import json

import pytest

from rl_lightning.cli.main import main
from rl_lightning.evaluation import PastEvaluations, evaluation_result, make_suite, store_suite
from rl_lightning.types import Problem

TASKS = ("chain_sum", "spell_backward")


def write_run(root, rights, length=64, number=10, rows_at_once=40):
    """Evaluations at steps 0, 10, …: at each, the first so many problems of each task are right."""
    problems = tuple(Problem(f"{task} {i}?", expected="1", task=task, index=i) for task in TASKS for i in range(number))
    suite = make_suite(problems, length, "", None, 0, {task: {} for task in TASKS})
    directory = root / "eval_results"
    store_suite(suite, directory)
    past, ran_with = PastEvaluations(directory), {"rows_at_once": rows_at_once, "weights": "merged"}
    for place, right in enumerate(rights):
        rows = [
            {"task": p["task"], "index": p["index"], "tokens": 5, "truncated": False, "answer": "1", "completion": ""}
            | dict.fromkeys(("exact", "partial"), float(p["index"] < right))
            for p in suite.problems
        ]
        result = evaluation_result(
            10 * place, rows, suite, past, {"chain_sum": {"constant": 0.3, "constant_answer": "1"}}, ran_with
        )
        (directory / f"eval_step_{10 * place}.json").write_text(json.dumps({**result, "rows": rows}))
        (root / f"checkpoint-{10 * place}").mkdir()
    return root


def comparison(out):
    return json.loads((out / "comparison.json").read_text())


def test_a_run_against_its_base_and_its_checkpoints(tmp_path, capsys):
    """Right of 10 a task: 2 at step 0, 9 at 10, 8 at 20."""
    run = write_run(tmp_path / "run", [2, 9, 8])
    names = ["base", str(run), str(run / "checkpoint-10")]
    assert main(["compare", *names, "--out", str(tmp_path / "out")]) == 0
    found = comparison(tmp_path / "out")
    assert found["reference"] == "base"
    assert [contender["step"] for contender in found["contenders"]] == [0, 20, 10]
    assert [s["groups"]["all problems"]["accuracy"] for s in found["contenders"]] == [0.2, 0.8, 0.9]
    difference = found["contenders"][2]["groups"]["chain_sum"]["difference"]
    assert difference["mean"] == pytest.approx(0.7)
    assert difference["p"] == 2 / 2**7  # McNemar: 7 better, none worse
    assert "difference" not in found["contenders"][0]["groups"]["chain_sum"]
    assert (tmp_path / "out" / "comparison.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    text = capsys.readouterr().out
    assert "all problems" in text
    assert "+0.700 (" in text
    assert "always answering '1'" in text


def test_evaluations_with_other_rows_at_once_are_named(tmp_path, capsys):
    one, other = write_run(tmp_path / "one", [2]), write_run(tmp_path / "other", [4], rows_at_once=20)
    assert main(["compare", str(one), str(other), "--out", str(tmp_path / "out")]) == 0
    assert comparison(tmp_path / "out")["contenders"][1]["rounds_otherwise"] == ["rows_at_once was 40 and is 20"]
    assert "may differ by rounding alone: rows_at_once was 40 and is 20; --evaluate" in capsys.readouterr().out
    assert main(["compare", str(one), str(one / "checkpoint-0"), "--out", str(tmp_path / "same")]) == 0
    assert "rounding" not in capsys.readouterr().out


def test_earlier_results_stay(tmp_path, capsys):
    run = write_run(tmp_path / "run", [2, 9])
    for _ in range(2):
        assert main(["compare", "base", str(run), "--out", str(tmp_path / "out")]) == 0
    assert comparison(tmp_path / "out") == comparison(tmp_path / "out_2")
    assert str(tmp_path / "out_2") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["one"], ["two or more"]),
        (["one", "one"], ["the same name twice"]),
        (
            ["one", "longer"],
            ["were evaluated on different suites", "max_new_tokens was 64 and is 72", "--evaluate --config"],
        ),
        (["one", "fewer"], ["chain_sum had 10 problems and has 4", "--evaluate --config"]),
        (["one", "one/checkpoint-30"], ["checkpoint-30", "not evaluated at its step", "--evaluate"]),
        (["one", "nowhere"], ["nowhere", "neither a run directory"]),
        (["base", "base"], ["twice"]),
        (["one", "two", "--outt", "x"], ["--outt"]),
    ],
)
def test_what_cannot_be_compared_gets_one_line(tmp_path, monkeypatch, capfd, names, parts):
    write_run(tmp_path / "one", [2, 9])
    (tmp_path / "one" / "checkpoint-30").mkdir()
    write_run(tmp_path / "two", [2])
    write_run(tmp_path / "longer", [2], length=72)
    write_run(tmp_path / "fewer", [2], number=4)
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *names]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert all(part in line for part in parts), line
    assert not (tmp_path / "outputs").exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    assert "--evaluate --config" in capsys.readouterr().out
