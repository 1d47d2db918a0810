"""Diagnostics in a real run: on the console, in the file, in the checkpoint."""

from __future__ import annotations

import json

import pytest

from rl_lightning.callbacks import Diagnostics
from rl_lightning.checkpointing.checkpoints import resolve_checkpoint
from tests.runs import run


@pytest.fixture(scope="module")
def not_learning(tmp_path_factory):
    """Completions of at most three tokens, and a rate that moves nothing."""
    from rl_lightning.rollout import Sampling

    def fit(root, steps, ckpt_path=None):
        few = {"sampling": Sampling(4, 3), "learning_rate": 1e-12}
        return run(root, steps, ckpt_path, evaluate=False, callbacks=[Diagnostics(window=2)], **few)

    root = tmp_path_factory.mktemp("not_learning")
    fit(root / "whole", 5)
    return root, fit


def test_each_is_said_once_with_step_and_name(not_learning):
    root, _ = not_learning
    lines = [json.loads(line) for line in (root / "whole" / "warnings.jsonl").read_text().splitlines()]
    names = [line["name"] for line in lines]
    assert len(names) == len(set(names))
    assert {"truncated", "format_missing", "rate_without_effect"} <= set(names)
    assert lines[0]["step"] == 2
    assert all("model." in line["text"] or "data." in line["text"] for line in lines)


def test_a_resumed_run_does_not_repeat_itself(not_learning, caplog):
    root, fit = not_learning
    fit(root / "halves", 2)
    assert (root / "halves" / "warnings.jsonl").read_text()
    with (root / "halves" / "warnings.jsonl").open("a") as file:  # said after the checkpoint, before a kill
        file.write(json.dumps({"step": 3, "name": "too_hard", "text": "lost"}) + "\n")
    caplog.clear()
    fit(root / "halves", 5, str(resolve_checkpoint("last", root / "halves")))
    assert "cut off" not in caplog.text
    ours, theirs = ((root / name / "warnings.jsonl").read_text() for name in ("halves", "whole"))
    assert ours == theirs
