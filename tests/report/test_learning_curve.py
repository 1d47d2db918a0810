from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from rl_lightning.callbacks import LearningCurve
from rl_lightning.distributed import SingleProcess
from rl_lightning.report.learning_curve import draw, table
from rl_lightning.types import UserError


@pytest.fixture
def finished_run(tmp_path):
    (tmp_path / "eval_results").mkdir()
    for step, accuracy in ((0, 0.1), (20, 0.6), (100, 0.9)):
        metrics = {
            "n": 10,
            "accuracy": accuracy,
            "low": accuracy - 0.1,
            "high": accuracy + 0.05,
            "mean_tokens": 7.0 + step,
        }
        gain = {"gain": {"mean": accuracy - 0.1, "low": 0.3, "high": 0.9}} if step else {}
        report = {"step": step, "overall": metrics | gain, "tasks": {"chain_sum": metrics}}
        (tmp_path / "eval_results" / f"eval_step_{step}.json").write_text(json.dumps(report))
    (tmp_path / "metrics.csv").write_text("completion/tokens,reward/exact,step\n7,0.1,1\n,,2\n30,0.8,3\n")
    return tmp_path


def test_the_table_is_in_order_of_steps_with_the_gain(finished_run):
    lines = table(finished_run).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["0", "20", "100"]
    assert "gain +0.800, 95% interval +0.300 to +0.900, on 10 problems" in lines[4]


def test_the_picture_is_a_picture(finished_run):
    draw(finished_run, finished_run / "curve.png")
    assert (finished_run / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_end_of_a_run_leaves_the_picture_also_without_an_evaluation(finished_run, tmp_path_factory):
    bare = tmp_path_factory.mktemp("bare")
    (bare / "metrics.csv").write_text("completion/tokens,step\n7,1\n30,3\n")
    for run in (finished_run, bare):
        trainer = SimpleNamespace(callbacks=[], default_root_dir=run)
        LearningCurve().on_train_end(trainer, SimpleNamespace(collective=SingleProcess()))
        assert (run / "learning_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="no evaluation in it"):
        table(tmp_path)


def test_a_panel_of_which_nothing_was_logged_says_so(finished_run, tmp_path, monkeypatch):
    """Without metrics.csv two of the three panels; with it the shares and lengths are there."""
    from matplotlib.axes import Axes

    said = []
    monkeypatch.setattr(Axes, "text", lambda self, x, y, text, **_: said.append(self.get_title()))
    draw(finished_run, tmp_path / "curve.png")
    assert said == []
    (finished_run / "metrics.csv").unlink()
    draw(finished_run, tmp_path / "curve.png")
    assert [title.partition(":")[0] for title in said] == ["Training samples", "Training samples"]
