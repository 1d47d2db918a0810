"""Whole runs of a few steps with a real trainer: what is written, what is kept, how a run goes on."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from safetensors.torch import load_file

from rl_lightning.callbacks import FixedEval
from rl_lightning.checkpointing.checkpoints import checkpoints, resolve_checkpoint
from rl_lightning.cli.main import main
from rl_lightning.data import PromptDataModule
from rl_lightning.module import GRPOModule
from rl_lightning.rollout import Sampling
from rl_lightning.types import UserError
from tests.runs import SUMS, LengthReward, adapters, evaluated, run


@pytest.fixture(scope="module")
def five_steps(tmp_path_factory):
    root = tmp_path_factory.mktemp("five")
    return (root, *run(root, 5))


def test_a_run_leaves_what_the_readme_says(five_steps):
    root, trainer, module, data = five_steps
    assert trainer.global_step == 5
    assert data.cursor == 10
    assert [p.name for p in checkpoints(root)] == ["checkpoint-4", "checkpoint-5"]  # save_total_limit 2
    assert sorted(p.name for p in (root / "eval_results").iterdir()) == [
        *(f"eval_step_{n}.json" for n in (0, 2, 4, 5)),
        "suite.json",
    ]
    assert [p.name for p in (root / "rollouts").iterdir()] == ["rollouts_000001-000020.parquet"]
    rollouts = pd.read_parquet(root / "rollouts")
    assert list(rollouts.step) == [step for step in range(1, 6) for _ in range(2 * 4)]
    assert list(rollouts["index"]) == [index for index in range(2 * 5) for _ in range(4)]
    results = json.loads((root / "train_results.json").read_text())
    assert results["step"] == 5
    assert results["eval"]["step"] == 5
    assert not list(root.glob(".*"))  # no temporary file is left


def test_metrics_are_in_the_csv_with_optimizer_steps(five_steps):
    root, *_ = five_steps
    rows = list(csv.DictReader((root / "metrics.csv").open()))
    trained = [row for row in rows if row["reward/mean"]]
    assert [int(float(row["step"])) for row in trained] == [1, 2, 3, 4, 5]
    names = {
        "policy/entropy",
        "policy/logprob_mismatch",
        "groups/with_variance",
        "time/sample",
        "completion/tokens",
        "policy/grad_norm",
    }
    assert all(row[name] for row in trained for name in names)
    evaluated = [row for row in rows if row["eval/accuracy"]]
    assert [int(float(row["step"])) for row in evaluated] == [0, 2, 4, 5]
    assert all(row["eval/chain_sum/accuracy"] for row in evaluated)


def test_the_plan_is_carried_out_and_measured_beside(five_steps):
    root, _, module, _ = five_steps
    # A group: 4 rows of 524 slots, two padded slots per token.
    assert module.limits.token_budget.value == module.plan.settings.token_budget == 1048
    assert module.limits.rollout_rows.value == 8
    rows = [row for row in csv.DictReader((root / "metrics.csv").open()) if row["reward/mean"]]
    assert all(0.2 < float(row["memory/peak_gb"]) < 20 for row in rows)


def test_every_column_is_described_in_the_docs(five_steps):
    root, *_ = five_steps
    docs = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    columns = next(csv.reader((root / "metrics.csv").open()))
    for column in columns:
        patterns = {column, re.sub("/chain_sum/.*", "/<task>/…", column), re.sub("raised_.*", "raised_<Error>", column)}
        assert column in ("step", "epoch") or any(f"`{pattern}`" in docs for pattern in patterns), column


def test_the_evaluation_file_holds_what_the_design_promises(five_steps):
    root, *_ = five_steps
    first, last = (json.loads((root / "eval_results" / f"eval_step_{n}.json").read_text()) for n in (0, 5))
    assert first["suite"] == last["suite"]
    assert "gain" not in first["overall"]
    assert set(last["overall"]["gain"]) == {"mean", "low", "high", "p"}
    assert last["best"]["step"] in (0, 2, 4)
    assert all(0 < report["share_of_run"] <= 1 for report in (first, last))
    for report in (first, last):
        assert report["overall"]["n"] == 5 == len(report["rows"])
        assert set(report["tasks"]) == {"chain_sum"}
        assert report["overall"]["accuracy"] == sum(row["exact"] for row in report["rows"]) / 5
        assert set(report["rows"][0]) == {
            "task",
            "index",
            "exact",
            "partial",
            "tokens",
            "truncated",
            "answer",
            "completion",
        }


def test_weights_moved_and_only_the_adapters_are_saved(five_steps):
    root, _, module, _ = five_steps
    saved = load_file(root / "checkpoint-5" / "adapter_model.safetensors")
    assert len(saved) == 56
    assert any(tensor.abs().max() > 0 for name, tensor in saved.items() if "lora_B" in name)
    state = torch.load(root / "checkpoint-5" / "trainer.ckpt", weights_only=True)
    assert set(state["state_dict"]) == {n for n, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_resumed_run_ends_as_an_uninterrupted_one(five_steps, tmp_path, workers):
    """Same completions, same weights to the last bit, same evaluation."""
    root, *_ = five_steps
    run(tmp_path, 3, workers=workers)
    run(tmp_path, 5, ckpt_path=str(resolve_checkpoint("last", tmp_path)), workers=workers)
    name = "rollouts/rollouts_000001-000020.parquet"
    assert (tmp_path / name).read_bytes() == (root / name).read_bytes()
    ours, theirs = adapters(tmp_path, 5), adapters(root, 5)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert evaluated(tmp_path) == evaluated(root)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(float(row["step"])) for row in rows if row["reward/mean"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("samples", [None, 3])
def test_evaluation_changes_not_one_bit_of_the_run(five_steps, tmp_path, samples):
    """Weights, optimizer, RNG states and completions: without any evaluation, and with sampled ones, as with greedy ones."""
    root, *_ = five_steps
    run(tmp_path, 5, evaluate=samples is not None, samples=samples)
    ours, theirs = adapters(tmp_path, 5), adapters(root, 5)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    name = "rollouts/rollouts_000001-000020.parquet"
    assert (tmp_path / name).read_bytes() == (root / name).read_bytes()
    states = [torch.load(path / "checkpoint-5" / "trainer.ckpt", weights_only=True) for path in (tmp_path, root)]
    for part in ("sampler", "rng_states", "optimizer_states", "PromptDataModule"):
        ours, theirs = (list(leaves(state[part])) for state in states)
        assert len(ours) == len(theirs)
        assert all(
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(ours, theirs, strict=True)
        )


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def test_a_changed_suite_is_named_and_not_compared(five_steps, tmp_path, caplog):
    """The last checkpoint is evaluated with shorter answers and fewer problems, in the run's own directory."""
    root, *_ = five_steps
    shutil.copytree(root, tmp_path / "run")
    root = tmp_path / "run"
    seed_everything(0)
    module = GRPOModule(reward=LengthReward(), learning_rate=1e-3, sampling=Sampling(4, 9))
    data = PromptDataModule(SUMS, prompts_per_step=2, system_prompt="", num_workers=0, eval_num_samples=4)
    trainer = Trainer(default_root_dir=root, accelerator="cpu", logger=False, callbacks=[FixedEval()])
    trainer.validate(module, data, ckpt_path=root / "checkpoint-5" / "trainer.ckpt", weights_only=True)
    result = json.loads((root / "eval_results" / "validate_step_5.json").read_text())
    assert "gain" not in result["overall"]
    what = ["max_new_tokens was 12 and is 9", "chain_sum had 5 problems and has 4"]
    assert result["suite_change"] == {"step": 4, "what": what}
    assert "; ".join(what) in caplog.text
    suites = [json.loads((root / "eval_results" / name).read_text()) for name in ("suite.json", "suite_2.json")]
    assert [len(suite["problems"]) for suite in suites] == [5, 4]
    assert suites[1]["hash"] == result["suite"]


def test_a_taken_directory_is_refused_and_left_alone(five_steps):
    root, *_ = five_steps
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="holds a run already"):
        run(root, 5)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def test_an_older_checkpoint_does_not_write_over_a_newer(five_steps):
    root, *_ = five_steps
    with pytest.raises(UserError, match="holds checkpoint-5, newer than step 4"):
        run(root, 6, ckpt_path=str(root / "checkpoint-4" / "trainer.ckpt"))


def validate(root: Path, checkpoint: Path) -> int:
    """Through the command line, with the settings of `run`."""
    root.mkdir(exist_ok=True)
    config = root / "config_for_validate.yaml"
    specs = {name: {"config": spec.config} for name, spec in SUMS.items()}
    data = {"datasets": specs, "system_prompt": "", "num_workers": 0, "eval_num_samples": 5}
    sampling = {"num_generations": 4, "max_new_tokens": 12}
    settings = {"trainer": {"accelerator": "cpu"}, "model": {"sampling": sampling}, "data": data}
    config.write_text(json.dumps(settings))
    words = ["validate", "--config", str(config), "--ckpt_path", str(checkpoint)]
    return main([*words, f"--trainer.default_root_dir={root}", "--trainer.enable_progress_bar=false"])


def test_validate_gives_the_figures_of_the_run_and_leaves_it_alone(five_steps):
    root, *_ = five_steps
    metrics = (root / "metrics.csv").read_text()
    assert validate(root, root / "checkpoint-5") == 0
    assert evaluated(root, "validate_step_5") == evaluated(root)
    assert len(list((root / "eval_results").glob("suite*.json"))) == 1
    assert (root / "metrics.csv").read_text() == metrics


def test_validate_takes_an_adapter_that_comes_alone(five_steps, tmp_path):
    root, *_ = five_steps
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        shutil.copy(root / "checkpoint-5" / name, tmp_path / "mine" / name)
    assert validate(tmp_path / "out", tmp_path / "mine") == 0
    ours, theirs = evaluated(tmp_path / "out", "validate_step_0"), evaluated(root)
    assert ours["rows"] == theirs["rows"]
    assert ours["suite"] == theirs["suite"]


def test_compare_evaluates_each_on_the_same_suite(five_steps, tmp_path, monkeypatch, capsys):
    """The checkpoint and the base, by a config that asks three problems; each in a process of its own, which is this one here."""
    root, *_ = five_steps
    data = {"datasets": {"chain_sum": {}}, "system_prompt": "", "num_workers": 0, "eval_num_samples": 3}
    settings = {"trainer": {"accelerator": "cpu"}, "model": {"sampling": {"max_new_tokens": 8}}, "data": data}
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    done = []

    def here(command, check):
        done.append(command)
        return SimpleNamespace(returncode=main(command[3:]))

    monkeypatch.setattr("rl_lightning.comparison.evaluating.subprocess.run", here)
    config = ["--config", str(tmp_path / "config.yaml"), "--trainer.enable_progress_bar=false"]
    assert main(["compare", "base", str(root), "--out", str(tmp_path / "out"), "--evaluate", *config]) == 0
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [contender["label"] for contender in found["contenders"]] == ["base", str(root)]
    assert [contender["step"] for contender in found["contenders"]] == [0, 5]
    assert found["contenders"][1]["groups"]["all problems"]["n"] == 3
    assert "--ckpt_path" not in done[0]
    assert done[1][-2] == str(root / "checkpoint-5")
    (file,) = (tmp_path / "out" / "evaluations").glob("1_*/eval_results/validate_step_0.json")
    rows = json.loads(file.read_text())["ran_with"]["rows_at_once"]
    assert f"--fixed_eval.rows={rows}" in done[1]
    assert not any(word.startswith("--fixed_eval.rows") for word in done[0])
    assert "rounding" not in (tmp_path / "out" / "comparison.json").read_text()
    assert "could not be evaluated" not in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "base", "--out", str(tmp_path / "out"), "--evaluate", *config]) == 2
    assert f"{tmp_path} could not be evaluated" in capsys.readouterr().err


def test_an_adapter_of_another_shape_is_refused(five_steps):
    from rl_lightning.policy import PolicyConfig

    root, *_ = five_steps
    with pytest.raises(UserError, match="policy.lora_r was 16 and is 4"):
        run(root, 6, ckpt_path=str(resolve_checkpoint("last", root)), policy=PolicyConfig(lora_r=4))


def test_unwritten_checkpoints_are_not_found(tmp_path):
    (tmp_path / "checkpoint-7").mkdir()
    with pytest.raises(UserError, match="no intact checkpoint in"):
        resolve_checkpoint("last", tmp_path)
    with pytest.raises(UserError, match="is not a checkpoint directory or `last`"):
        resolve_checkpoint(str(tmp_path / "checkpoint-9"), tmp_path)
