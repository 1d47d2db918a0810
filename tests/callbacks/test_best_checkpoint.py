"""The best checkpoint by evaluation is kept and found; ties go to the earlier; a resumed run keeps the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rl_lightning.callbacks import AdapterCheckpoint, FixedEval
from rl_lightning.checkpointing.checkpoints import (
    STATE_FILE,
    best_checkpoint,
    checkpoints,
    find_checkpoint,
    resolve_checkpoint,
    resolve_word,
    write_checkpoint,
)
from rl_lightning.types import UserError
from tests.runs import run


def write(root: Path, step: int, accuracy: float | None, suite: str = "s") -> None:
    """A checkpoint that is intact, with an evaluation."""
    write_checkpoint(root / f"checkpoint-{step}", lambda at: (at / STATE_FILE).write_text("state") and None)
    if accuracy is not None:
        (root / "eval_results").mkdir(exist_ok=True)
        text = json.dumps({"suite": suite, "overall": {"accuracy": accuracy}})
        (root / "eval_results" / f"eval_step_{step}.json").write_text(text)


def test_the_best_is_found_and_of_equal_ones_the_earliest(tmp_path):
    for step, accuracy in ((10, 0.5), (20, 0.75), (100, 0.75), (110, 0.25), (120, None)):
        write(tmp_path, step, accuracy)
    assert best_checkpoint(tmp_path) == tmp_path / "checkpoint-20"
    assert find_checkpoint(tmp_path / "best").name == "checkpoint-20"
    assert find_checkpoint(tmp_path / "last").name == find_checkpoint(tmp_path).name == "checkpoint-120"
    assert resolve_word(f"{tmp_path}/best") == str(tmp_path / "checkpoint-20")
    assert resolve_word("me/best") == "me/best"  # a model of the hub, say
    assert resolve_checkpoint("best", tmp_path) == tmp_path / "checkpoint-20" / STATE_FILE
    (tmp_path / "checkpoint-20" / STATE_FILE).write_text("damaged")
    assert best_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_evaluations_on_other_problems_do_not_count(tmp_path):
    write(tmp_path, 1, 1.0, suite="easy")
    write(tmp_path, 2, 0.5)
    write(tmp_path, 3, 0.25)
    assert best_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_no_evaluation_and_a_damaged_one(tmp_path):
    write(tmp_path, 1, None)
    with pytest.raises(UserError, match="no intact checkpoint in .* has an evaluation of its step"):
        find_checkpoint(tmp_path / "best")
    write(tmp_path, 2, 0.5)
    (tmp_path / "eval_results" / "eval_step_2.json").write_text("[")
    with pytest.raises(UserError, match=r"eval_step_2\.json: not an evaluation"):
        best_checkpoint(tmp_path)


@pytest.fixture
def accuracies(monkeypatch):
    """Evaluations say 0.2, and 0.6 at the steps 2 and 4."""
    report = FixedEval._report

    def chosen(self, trainer, pl_module, rows, began):
        result = report(self, trainer, pl_module, rows, began)
        path = Path(trainer.default_root_dir) / "eval_results" / f"eval_step_{result['step']}.json"
        found = json.loads(path.read_text())
        found["overall"]["accuracy"] = 0.6 if result["step"] in (2, 4) else 0.2
        path.write_text(json.dumps(found))
        return result

    monkeypatch.setattr(FixedEval, "_report", chosen)


def names(root: Path) -> list[str]:
    return [path.name for path in checkpoints(root)]


def test_a_run_keeps_the_best_beside_the_newest_also_when_resumed(tmp_path, accuracies):
    def keeping():
        return AdapterCheckpoint(save_steps=2, save_total_limit=1, keep_best=True)

    run(tmp_path, 6, checkpoint=keeping())
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-6"]
    run(tmp_path, 8, ckpt_path=str(resolve_checkpoint("last", tmp_path)), checkpoint=keeping())
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-8"]
    assert find_checkpoint(tmp_path / "best").name == "checkpoint-2"


def test_without_it_only_the_newest_stay(tmp_path, accuracies):
    run(tmp_path, 6, checkpoint=AdapterCheckpoint(save_steps=2, save_total_limit=1))
    assert names(tmp_path) == ["checkpoint-6"]


def test_keeping_the_best_needs_an_evaluation_of_each(tmp_path):
    with pytest.raises(UserError, match=r"save_steps: 3 is not allowed; it must be a multiple of .* \(2\)"):
        run(tmp_path / "a", 2, checkpoint=AdapterCheckpoint(save_steps=3, keep_best=True))
    with pytest.raises(UserError, match="it must be false where there is no FixedEval"):
        run(tmp_path / "b", 2, evaluate=False, checkpoint=AdapterCheckpoint(save_steps=2, keep_best=True))
