"""Comparing evaluations that were written as a run writes them."""

from __future__ import annotations

import json

import pytest

from rl_lightning.cli.main import main
from rl_lightning.evaluation import PastEvaluations, evaluation_result, make_suite, store_suite
from rl_lightning.types import Problem

TASKS = ("chain_sum", "spell_backward")


LEVELS = [{"min_terms": 2}, {"min_terms": 3}]


def write_run(root, rights, length=64, number=10, rows_at_once=40, levels=(), trained=None):
    """Evaluations at steps 0, 10, …: at each, the first so many problems of each task are right. With levels the first half of the
    problems of the first task are of the first one."""
    problems = tuple(
        Problem(
            f"{task} {i}?{' ' + str(levels) if levels and task == TASKS[0] else ''}",
            expected="1",
            task=task,
            index=i,
            level=len(levels) * i // number if levels and task == TASKS[0] else None,
        )
        for task in TASKS
        for i in range(number)
    )
    configs = {task: {} for task in TASKS} | ({TASKS[0]: {"levels": list(levels)}} if levels else {})
    suite = make_suite(problems, length, "", None, 0, configs)
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
        said = {**result, "rows": rows} | ({"trained_levels": trained} if trained and place else {})
        (directory / f"eval_step_{10 * place}.json").write_text(json.dumps(said))
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


def test_runs_with_a_curriculum_are_compared_level_by_level(tmp_path, capsys):
    """Of ten problems the first five are of level 0. The first run has 2 right, the other 8."""
    one = write_run(tmp_path / "one", [2, 2], levels=LEVELS, trained={"chain_sum": {0: 7, 1: 2}})
    other = write_run(tmp_path / "other", [2, 8], levels=LEVELS, trained={f"task {k}": {0: k} for k in range(9)})
    assert main(["compare", str(one), str(other), "base", "--out", str(tmp_path / "out")]) == 0
    found = comparison(tmp_path / "out")["contenders"]
    names = ["all problems", "chain_sum", "chain_sum, level 0", "chain_sum, level 1", "spell_backward"]
    assert [list(each["groups"]) for each in found] == [names] * 3
    of_levels = [found[1]["groups"][f"chain_sum, level {level}"] for level in (0, 1)]
    assert [(each["n"], each["accuracy"]) for each in of_levels] == [(5, 1.0), (5, 0.6)]
    assert [each["difference"]["mean"] for each in of_levels] == [pytest.approx(0.6), pytest.approx(0.6)]
    assert [each.get("trained_levels") for each in found][::2] == [{"chain_sum": {"0": 7, "1": 2}}, None]
    text = capsys.readouterr().out
    assert f"{one} was trained with a curriculum, groups by level: chain_sum 7 at 0, 2 at 1\n" in text
    assert "task 7 7 at 0; and 1 tasks more" in text
    assert "base was trained" not in text


def test_runs_of_which_one_had_a_curriculum_are_of_different_suites(tmp_path, capsys):
    plain, two = write_run(tmp_path / "plain", [2]), write_run(tmp_path / "two", [2], levels=LEVELS)
    three = write_run(tmp_path / "three", [2], levels=[*LEVELS, {"min_terms": 4}])
    harder = write_run(tmp_path / "harder", [2], levels=[LEVELS[0], {"min_terms": 5}])
    for one, other, said in (
        (plain, two, "chain_sum was at its config alone and is at 2 levels of a curriculum"),
        (two, three, "chain_sum was at 2 levels of a curriculum and is at 3 levels of a curriculum"),
        (two, harder, "chain_sum.levels[1].min_terms was 3 and is 5"),
    ):
        assert main(["compare", str(one), str(other), "--out", str(tmp_path / "out")]) == 2
        assert f"were evaluated on different suites: {said}; to evaluate" in capsys.readouterr().err


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
