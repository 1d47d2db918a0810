"""The page as text: what is in it, what is said where something is missing, and that a model's words stay words."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil

import pyarrow
import pyarrow.parquet
import pytest

from rl_lightning.cli.main import main
from rl_lightning.report import samples
from rl_lightning.report.page import page
from rl_lightning.report.run_files import read_runs
from rl_lightning.types import UserError
from tests.report.constructed import HOSTILE, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "made", hostile=HOSTILE)


@pytest.fixture(scope="module")
def text(run):
    return page(read_runs([run]))


def data(text, name):
    (found,) = re.findall(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', text, re.DOTALL)
    return json.loads(found if name == "data" else gzip.decompress(base64.b64decode(found)))


def test_nothing_is_fetched(text):
    """No address of a resource; those in uPlot's licence comment and XML namespaces are not asked for."""
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:,)""", text.split("<script")[0])
    assert "<script src" not in text
    assert '<link rel="stylesheet"' not in text


def test_what_a_model_wrote_is_in_the_data_and_never_in_the_markup(text):
    assert "<img" not in text
    assert "&lt;/script&gt;&lt;img" in text  # the warning
    completions = [row[0] for group in data(text, "rollout-data")["runs"][0]["groups"] for row in group["rows"]]
    assert any(HOSTILE in completion for completion in completions)
    assert any(problem["answers"][1][0] == HOSTILE for problem in data(text, "problem-data")["problems"])


def test_a_task_named_in_markup_cannot_leave_the_data_of_the_charts(tmp_path):
    run = write_run(tmp_path / "run")
    file = run / "eval_results" / "eval_step_40.json"
    report = json.loads(file.read_text())
    report["tasks"]["</script><b>"] = report["tasks"]["chain_sum"]
    file.write_text(json.dumps(report))
    assert "</script><b>" not in page(read_runs([run]))


def test_the_content_policy_allows_the_scripts_that_are_there_and_no_other(text):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    policy = policy.replace("&#39;", "'")
    for script in re.findall(r"<script>(.*?)</script>", text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "connect-src" not in policy


def test_all_rollouts_of_a_short_run_are_there(text):
    (found,) = data(text, "rollout-data")["runs"]
    assert found["note"] == "All 1,280 completions of the run."
    assert sum(len(group["rows"]) for group in found["groups"]) == 1280
    assert [group["step"] for group in found["groups"]] == sorted(group["step"] for group in found["groups"])


def test_of_a_long_run_whole_groups_of_even_steps_are_there_and_it_says_so(run, monkeypatch):
    monkeypatch.setattr(samples, "MOST_COMPLETIONS", 4 * 32)
    (found,) = samples.rollouts(read_runs([run]))["runs"]
    assert found["steps"] == [1, 14, 27, 40]
    assert all(len(group["rows"]) == 8 for group in found["groups"])
    assert found["note"].startswith("128 of 1,280 completions: every group of 4 of 40 rollouts")


def test_long_completions_leave_fewer_steps(run, monkeypatch):
    monkeypatch.setattr(samples, "MOST_CHARACTERS", 10_000)
    (found,) = samples.rollouts(read_runs([run]))["runs"]
    assert 1 <= len(found["steps"]) < 40
    assert found["steps"][-1] == 40


def test_a_text_without_end_is_cut_in_the_middle():
    text = samples.bounded("a" * 30_000 + "z")
    assert text.startswith("aaa")
    assert text.endswith("z")
    assert "[10,001 characters left out]" in text


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("eval_results", "This run has no evaluation yet."),
        ("rollouts", "No rollout yet"),
        ("metrics.csv", "No metric yet"),
        ("config.yaml", "no config.yaml"),
        ("warnings.jsonl", "No warning was raised."),
        ("train_results.json", "not ended; newest step 40"),
    ],
)
def test_what_is_missing_is_said(run, tmp_path, missing, said):
    copy = shutil.copytree(run, tmp_path / "copy")
    assert said not in page(read_runs([copy]))
    shutil.rmtree(copy / missing) if (copy / missing).is_dir() else (copy / missing).unlink()
    assert said in page(read_runs([copy]))


def test_a_run_that_has_just_begun_makes_a_page(tmp_path):
    (tmp_path / "config.yaml").write_text("seed_everything: 0\n")
    (tmp_path / "metrics.csv").write_text("step,reward/mean\n1,0.5\n2,0.")  # the last row is being written
    assert data(page(read_runs([tmp_path])), "data")["charts"]["learning"][0]["lines"][0]["y"] == [0.5]


def test_runs_are_compared_where_they_differ(run, tmp_path):
    other = write_run(tmp_path / "other", seed=1, group=4)
    text = page(read_runs([run, other]))
    settings = text.split("Where the runs differ")[1].split("</table>")[0]
    assert re.findall(r"<code>([a-z_.]+)</code></th>", settings) == [
        "model.sampling.num_generations",
        "seed_everything",
    ]
    reward = next(chart for chart in data(text, "data")["charts"]["learning"] if chart["title"] == "Reward")
    assert [(line["label"], line["colour"]) for line in reward["lines"]] == [("made", "c0"), ("other", "c1")]
    assert "last evaluation against made's" in text
    labels = [version["label"] for version in data(text, "problem-data")["versions"]]
    assert labels == ["made, step 0", "made, step 40", "other, step 0", "other, step 40"]


def test_another_suite_is_named_and_not_compared(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    file = copy / "eval_results" / "eval_step_40.json"
    file.write_text(file.read_text().replace("0f1e2d3c4b5a6978", "ffffffffffffffff"))
    text = page(read_runs([copy]))
    assert "Cannot be said." in text
    assert "not comparable" in text
    assert "evaluated on other problems: step 40" in data(text, "problem-data")["note"]


def test_the_command_writes_the_page_and_writes_it_again(tmp_path, capsys):
    run = write_run(tmp_path / "run", steps=4, evaluations=(0, 4))
    assert main(["report", str(run)]) == 0
    assert main(["report", str(run), "--out", str(run / "report.html")]) == 0
    said = capsys.readouterr().out
    assert "Yes, it is getting better." in said
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert (run / "learning_curve.png").is_file()


@pytest.mark.parametrize("missing", ["eval_results", "rollouts", "metrics.csv", "config.yaml"])
def test_the_command_says_in_words_what_is_missing(run, tmp_path, capsys, missing):
    """One line for the file, with what cannot be shown; nothing of the kind if all is there."""
    copy = shutil.copytree(run, tmp_path / "copy")
    assert main(["report", str(copy)]) == 0
    assert "cannot be shown" not in capsys.readouterr().out
    shutil.rmtree(copy / missing) if (copy / missing).is_dir() else (copy / missing).unlink()
    assert main(["report", str(copy)]) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "cannot be shown" in line]
    assert f"({missing}" in said
    assert f"{said[1:]}." in (copy / "report.html").read_text()


def test_more_lines_than_colours_are_dashed(run, tmp_path):
    runs = [shutil.copytree(run, tmp_path / f"run{k}") for k in range(9)]
    lines = data(page(read_runs(runs)), "data")["charts"]["learning"][0]["lines"]
    assert len({(line["colour"], line["dashed"]) for line in lines[:8]}) == 8
    assert [line["dashed"] for line in lines] == [False] * 4 + [True] * 4 + [False]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("eval_results/eval_step_40.json", "[]", "no object in it"),
        ("eval_results/eval_step_40.json", '{"step": 40}', "no overall, tasks in it"),
        ("metrics.csv", "a,b\n1,2\n", "no column 'step'"),
        ("warnings.jsonl", '{"step": 1}\n', "no name, text in it"),
        ("rollouts/rollouts_000001-000020.parquet", "PAR1", "cannot be read as rollouts"),
    ],
)
def test_a_file_that_is_no_runs_is_named(run, tmp_path, name, content, said):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / name).write_text(content)
    with pytest.raises(UserError, match=f"{copy / name}: .*{said}"):
        page(read_runs([copy]))


def test_a_table_of_something_else_is_named(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    pyarrow.parquet.write_table(pyarrow.table({"other": [1]}), copy / "rollouts" / "rollouts_000041-000060.parquet")
    with pytest.raises(UserError, match="000060.parquet: cannot be read as rollouts .*step"):
        page(read_runs([copy]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report"], "report: the following arguments are required: RUN"),
        (["report", "nowhere"], "nowhere: there is no such directory"),
        (["report", "."], "nothing of a run in it"),
        (["report", "run", "--out", "mine.txt"], "mine.txt: exists already and is not a page of this program"),
        (["report", "run", "--out", "run"], "is a directory"),
        (["report", "run", "run"], "given twice"),
        (["report", "run", "--watch", "--out", "x.html"], "give one of them"),
        (["report", "damaged"], "eval_step_0.json: not JSON"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", steps=2, evaluations=())
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "damaged" / "eval_results").mkdir(parents=True)
    (tmp_path / "damaged" / "eval_results" / "eval_step_0.json").write_text("{")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_what_a_fuller_evaluation_recorded_is_shown(run, tmp_path):
    """Recorded differences go before those worked out from rows; levels, constants, samples, the suite's questions."""
    copy = shutil.copytree(run, tmp_path / "copy")
    results = copy / "eval_results"
    suite = {"hash": "0f1e2d3c4b5a6978", "problems": []}
    suite["problems"] = [{"task": "chain_sum", "index": 3, "question": "How much is it?", "expected": "seven"}]
    (results / "suite.json").write_text(json.dumps(suite))
    report = json.loads((results / "eval_step_40.json").read_text())
    gain = {"mean": 0.5, "low": 0.4, "high": 0.6, "p": 0.012}
    report["overall"] |= {
        "low": 0.91,
        "high": 0.995,
        "gain": gain,
        "pass_at_k": {"1": 0.9, "4": 0.97},
        "majority_at_k": 0.93,
    }
    report["tasks"]["chain_sum"] |= {"constant": 0.73, "constant_answer": "Yes"}
    report["levels"] = {"chain_sum": {"num_terms 3": {**report["tasks"]["chain_sum"], "gain": gain}}}
    report |= {"share_of_run": 0.04, "samples": {"samples": 4, "temperature": 1.0}}
    (results / "eval_step_40.json").write_text(json.dumps(report))
    text = page(read_runs([copy]))
    assert "a gain of 50.0 points, 95% interval +40.0 to +60.0" in text
    for shown in ("0.012", "num_terms 3", "97.0%", "93.0%", "<code>Yes</code>", "<dt>Time evaluating</dt><dd>4%</dd>"):
        assert shown in text.split("<script")[0], shown
    accuracy = data(text, "data")["charts"]["learning"][0]["lines"][0]
    assert (accuracy["low"][-1], accuracy["high"][-1]) == (0.91, 0.995)
    (problem,) = [p for p in data(text, "problem-data")["problems"] if (p["task"], p["index"]) == ("chain_sum", 3)]
    assert (problem["question"], problem["expected"]) == ("How much is it?", "seven")
    assert data(text, "problem-data")["note"].endswith("Of each problem's 4 samples the first is shown.")
