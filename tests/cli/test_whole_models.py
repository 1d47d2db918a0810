"""The commands on a run in which all weights are trained: its checkpoints are models, evaluated as the run itself did."""

from __future__ import annotations

import json

import pytest
import yaml

from rl_lightning.cli.main import main
from rl_lightning.comparison.evaluating import _model_arguments
from tests.conftest import QUICKSTART

FULL = {"policy": {"quantization": "none", "lora_r": 0}, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two steps at a high rate, so that the policy is no longer the one it began as."""
    root = tmp_path_factory.mktemp("whole") / "run"
    data = {"prompts_per_step": 4, "eval_num_samples": 3, "num_workers": 0}
    (root.parent / "small.yaml").write_text(
        yaml.safe_dump({"model": {**FULL, "sampling": {"num_generations": 4}}, "data": data})
    )
    words = ["fit", "--config", str(QUICKSTART), "--config", str(root.parent / "small.yaml"), "--trainer.max_steps=2"]
    assert main([*words, "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={root}"]) == 0
    return root


def rows(file) -> dict:
    return {(row["task"], row["index"]): row for row in json.loads(file.read_text())["rows"]}


def test_validate_and_chat_answer_as_the_runs_own_evaluation(trained, capsys):
    before, after = (rows(trained / "eval_results" / f"eval_step_{step}.json") for step in (0, 2))
    validate = ["validate", "--config", str(trained / "config.yaml"), "--ckpt_path", str(trained / "checkpoint-2")]
    assert main([*validate, "--trainer.enable_progress_bar=false"]) == 0
    again = rows(trained / "eval_results" / "validate_step_2.json")
    assert {k: row["completion"] for k, row in again.items()} == {k: row["completion"] for k, row in after.items()}
    task, index = next(key for key in after if after[key]["completion"] != before[key]["completion"])
    asked = ["--task", task, "--index", str(index)]
    for words, row in (
        (["--ckpt_path", str(trained)], after[task, index]),
        (["--config", str(trained / "config.yaml")], before[task, index]),
    ):
        capsys.readouterr()
        assert main(["chat", *words, *asked]) == 0
        out = capsys.readouterr().out
        assert row["completion"].partition("<answer>")[2].partition("</answer>")[0] in out
        assert f"tokens  {row['tokens']}" in out


def test_a_run_can_begin_from_a_checkpoint_as_from_any_model(trained, tmp_path, capsys):
    last = trained / "checkpoint-2"
    words = ["plan", "--config", str(QUICKSTART), f"--model.policy.model_name_or_path={last}"]
    assert main(words) == 0
    assert f"Predicted memory of {last}" in capsys.readouterr().out


def test_a_checkpoint_is_compared_as_one_and_a_bare_model_as_a_model(trained, tmp_path):
    last, bare = trained / "checkpoint-2", tmp_path / "bare"
    assert _model_arguments(str(trained)) == _model_arguments(str(last)) == ["--ckpt_path", str(last)]
    bare.mkdir()
    (bare / "config.json").write_text((last / "config.json").read_text())
    assert _model_arguments(str(bare))[0] == f"--model.policy.model_name_or_path={bare}"


def test_a_config_of_adapters_does_not_evaluate_a_whole_models_checkpoint(trained, capfd):
    words = ["validate", "--config", str(trained / "config.yaml"), "--ckpt_path", str(trained / "checkpoint-2")]
    assert main([*words, "--model.policy.lora_r=8", "--trainer.enable_progress_bar=false"]) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(
        "error: ckpt_path: the checkpoint was trained with other settings: policy.lora_r was 0 and is 8"
    )


def test_the_plan_says_what_does_not_fit(capsys):
    words = ["plan", "--config", str(QUICKSTART), "--model.policy.lora_r=0", "--model.policy.quantization=none"]
    words += ["--model.policy.dtype=bfloat16", "--model.policy.model_name_or_path=Qwen/Qwen2.5-1.5B-Instruct"]
    assert main([*words, "--vram=24", "--model.objective.beta=0.1"]) == 1
    out = capsys.readouterr().out
    assert "does not fit, by" in out
    for part in ("weights", "rounded copy", "reference", "gradients", "optimizer"):
        assert f"  {part} " in out
    assert "rollout_weights" not in out
