"""What may go wrong on somebody's own machine: full disks, damaged files, bad numbers, too little memory, lost processes."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from rl_lightning.callbacks import FixedEval, fixed_eval
from rl_lightning.checkpointing.checkpoints import STATE_FILE, checkpoints, damage, resolve_checkpoint
from rl_lightning.cli.main import main
from rl_lightning.distributed import SingleProcess
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.loggers.metrics_csv import MetricsCSV
from rl_lightning.memory.limits import Limit, MemoryLimits
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import Sampling
from rl_lightning.types import LossOutput, UserError
from tests.environments.test_stream import Words
from tests.runs import SUMS, adapters, run, same


def damaged(root: Path, how: str) -> Path:
    newest = checkpoints(root)[-1]
    state = newest / STATE_FILE
    if how == "truncated":
        state.write_bytes(state.read_bytes()[:1000])
    elif how == "one bit":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(bytes(data))
    elif how == "missing":
        (newest / "adapter_model.safetensors").unlink()
    else:
        (newest / "checksums.json").write_text("{")
    return newest


@pytest.mark.parametrize("how", ["truncated", "one bit", "missing", "foreign"])
def test_a_damaged_checkpoint_is_named_and_last_passes_over_it(tmp_path, caplog, how):
    run(tmp_path / "whole", 4, evaluate=False)
    run(tmp_path / "hurt", 4, evaluate=False)
    newest = damaged(tmp_path / "hurt", how)
    with pytest.raises(UserError, match="is damaged: "):
        resolve_checkpoint(str(newest), tmp_path / "hurt")
    assert resolve_checkpoint("last", tmp_path / "hurt").parent.name == "checkpoint-2"
    assert f"skipping {newest}" in caplog.text
    run(tmp_path / "hurt", 4, ckpt_path=str(resolve_checkpoint("last", tmp_path / "hurt")), evaluate=False)
    assert damage(newest) is None
    same(tmp_path / "hurt", tmp_path / "whole", 4)


def test_going_on_past_a_damaged_checkpoint_never_deletes_the_last_whole_one(tmp_path):
    """Four is damaged; the run goes on from two, and stops at three, before four."""
    from rl_lightning.callbacks import AdapterCheckpoint

    run(tmp_path, 4, evaluate=False)
    damaged(tmp_path, "truncated")
    keep_one = AdapterCheckpoint(save_steps=1, save_total_limit=1)
    run(tmp_path, 3, ckpt_path=str(resolve_checkpoint("last", tmp_path)), evaluate=False, callbacks=[keep_one])
    assert resolve_checkpoint("last", tmp_path).parent.name == "checkpoint-3"


@pytest.mark.parametrize("names", ["[]", "[1]", "7"])
def test_odd_checksums_are_damage(tmp_path, names):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "checksums.json").write_text(names)
    assert damage(tmp_path / "checkpoint-1") is not None


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed writing file")]
)
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch, error):
    save = Trainer.save_checkpoint

    def full(self, path, *args, **kwargs):
        if self.global_step == 4:
            Path(path).write_bytes(b"half a file")
            raise error
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    with pytest.raises(UserError, match=r"checkpoint-4 cannot be written: .*checkpoint-2 is intact"):
        run(tmp_path, 6, evaluate=False)
    assert [damage(p) for p in checkpoints(tmp_path)] == [None]
    assert not list(tmp_path.glob(".*"))


def test_a_real_limit_of_the_file_system_is_one_line(tmp_path, capfd):
    """The system refuses files of over 200 kB, as a full disk refuses any."""
    resource = pytest.importorskip("resource")
    config = tmp_path / "config.yaml"
    specs = {name: {"config": spec.config} for name, spec in SUMS.items()}
    data = {"datasets": specs, "system_prompt": "", "num_workers": 0, "eval_num_samples": 2, "prompts_per_step": 1}
    sampling = {"num_generations": 2, "max_new_tokens": 4}
    trainer = {"accelerator": "cpu", "max_steps": 1, "enable_progress_bar": False}
    config.write_text(json.dumps({"trainer": trainer, "model": {"sampling": sampling}, "data": data}))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        status = main(["fit", "--config", str(config), f"--trainer.default_root_dir={tmp_path / 'run'}"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert error.startswith(f"error: {tmp_path / 'run' / 'checkpoint-1'} cannot be written")
    assert not checkpoints(tmp_path / "run")


def test_a_gradient_that_is_not_finite_is_skipped_counted_and_at_last_ends_the_run(tmp_path, monkeypatch):
    from rl_lightning import module as grpo

    good, bad_steps, step = grpo.policy_loss, {2}, 0

    def loss(*args):
        nonlocal step
        out = good(*args)
        step += 1
        return LossOutput(out.loss * float("nan"), out.metrics) if step in bad_steps else out

    monkeypatch.setattr(grpo, "policy_loss", loss)
    run(tmp_path / "one", 4, evaluate=False)
    rows = list(csv.DictReader((tmp_path / "one" / "metrics.csv").open()))
    assert [float(row["policy/skipped_updates"]) for row in rows] == [0, 1, 0, 0]
    assert all(t.isfinite().all() for t in adapters(tmp_path / "one", 4).values())

    step, bad_steps = 0, {3, 4, 5}
    with pytest.raises(
        UserError, match=r"not a finite number in 3 updates in a row; the last batch is in .*not_finite"
    ):
        run(tmp_path / "three", 8, evaluate=False)
    (file,) = (tmp_path / "three").glob("not_finite_step_*.pt")
    kept = torch.load(file, weights_only=True)
    assert len(kept["completions"]) == 8
    assert kept["completion_ids"].shape == kept["mask"].shape
    assert [p.name for p in checkpoints(tmp_path / "three")] == ["checkpoint-2", "checkpoint-4"]


def test_too_little_memory_for_the_update_halves_the_budget_and_changes_nothing(tmp_path, monkeypatch, caplog):
    run(tmp_path / "roomy", 2, evaluate=False, token_budget=512)
    log_probs = Policy.log_probs

    def scarce(self, batch, *args):
        if batch.input_ids.numel() > 70:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return log_probs(self, batch, *args)

    monkeypatch.setattr(Policy, "log_probs", scarce)
    _, module, _ = run(tmp_path / "scarce", 2, evaluate=False, token_budget=512)
    assert module.limits.token_budget.value == 64
    assert "model.token_budget is 64 for the next 50 steps; results change by rounding only" in caplog.text
    ours, theirs = adapters(tmp_path / "scarce", 2), adapters(tmp_path / "roomy", 2)
    for name in (
        name for name in theirs if "lora_B" in name
    ):  # which start at zero; Adam makes much of small gradients
        assert (ours[name] - theirs[name]).norm() < 0.01 * theirs[name].norm()
    rows = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("scarce", "roomy")]
    assert rows[0][0]["policy/trained_tokens"] == rows[1][0]["policy/trained_tokens"]


def test_too_little_memory_for_the_rollout_halves_its_rows_and_samples_the_same(tmp_path, monkeypatch):
    from rl_lightning.rollout import local_engine

    run(tmp_path / "roomy", 2, evaluate=False)
    sample_groups = local_engine.sample_groups

    def scarce(model, batch, sampling, *args, **kwargs):
        if sampling.max_rollout_rows > 3:
            sample_groups(model, batch, sampling, *args, **kwargs)  # all the work is done when memory is out
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample_groups(model, batch, sampling, *args, **kwargs)

    monkeypatch.setattr(local_engine, "sample_groups", scarce)
    _, module, _ = run(tmp_path / "scarce", 2, evaluate=False)
    assert module.limits.rollout_rows.value == 2
    a, b = (pd.read_parquet(tmp_path / name / "rollouts") for name in ("scarce", "roomy"))
    assert list(a.completion) == list(b.completion)


@pytest.fixture
def scarce(monkeypatch):
    """Memory for so many rows of evaluations and tokens of micro-batches, at which steps they are given; None: for all."""
    from rl_lightning.rollout import local_engine

    sample_groups, log_probs, most = local_engine.sample_groups, Policy.log_probs, {"rows": None, "tokens": None}

    def sample(model, batch, sampling, eos, decode, draws, *args):
        out = sample_groups(model, batch, sampling, eos, decode, draws, *args)
        if draws is None and most["rows"] is not None and sampling.max_rollout_rows > most["rows"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    def forward(self, batch, *args):
        if most["tokens"] is not None and batch.input_ids.numel() > most["tokens"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return log_probs(self, batch, *args)

    monkeypatch.setattr(local_engine, "sample_groups", sample)
    monkeypatch.setattr(Policy, "log_probs", forward)
    return most


def evaluation(root: Path, step: int) -> dict:
    return json.loads((root / "eval_results" / f"eval_step_{step}.json").read_text())


def test_an_evaluation_with_too_little_memory_is_made_again_with_fewer_rows_and_training_has_its_own(
    tmp_path, scarce, caplog
):
    many = {"sampling": Sampling(12, 12)}
    run(tmp_path / "roomy", 4, **many)
    scarce["rows"] = 3
    _, module, _ = run(tmp_path / "scarce", 4, **many)
    planned = evaluation(tmp_path / "roomy", 0)["ran_with"]["rows_at_once"]
    assert planned > 3
    assert module.limits.rollout_rows.value == module.limits.rollout_rows.most == 24
    fits = next(planned >> k for k in range(9) if planned >> k <= 3)
    assert [evaluation(tmp_path / "scarce", step)["ran_with"]["rows_at_once"] for step in (0, 2, 4)] == [fits] * 3
    assert evaluation(tmp_path / "scarce", 0)["rows"] == evaluation(tmp_path / "roomy", 0)["rows"]
    assert "fixed_eval.rows is" in caplog.text
    assert "round otherwise" not in caplog.text
    a, b = (pd.read_parquet(tmp_path / name / "rollouts") for name in ("scarce", "roomy"))
    assert list(a.completion) == list(b.completion)


def test_an_evaluation_whose_rows_change_midway_begins_again(monkeypatch):
    """Of two batches the second runs out of memory the first time: the first is evaluated anew, as the second was."""
    module = SimpleNamespace(limits=MemoryLimits.of(1000, 64, 40), collective=SingleProcess())
    limit = module.limits.eval_rows
    monkeypatch.setattr(fixed_eval, "conditions", lambda module: {"rows_at_once": limit.value})

    def share(self, trainer, pl_module):
        first = limit.value
        if first == 40:
            limit.halve()
        return [{"rows": first}, {"rows": limit.value}]

    monkeypatch.setattr(FixedEval, "_share_of_completions", share)
    assert FixedEval()._completions(None, module) == [{"rows": 20}, {"rows": 20}]


def test_an_evaluation_that_lowers_its_rows_in_a_later_step_says_so_and_a_resumed_run_keeps_them(
    tmp_path, scarce, caplog
):
    class Less(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            scarce["rows"] = 3 if trainer.global_step >= 2 else None

    many = {"sampling": Sampling(12, 12)}
    run(tmp_path / "whole", 6, callbacks=[Less()], **many)
    found = [evaluation(tmp_path / "whole", step) for step in (0, 2, 4, 6)]
    first, later = found[0]["ran_with"]["rows_at_once"], found[2]["ran_with"]["rows_at_once"]
    assert first > 3 >= later
    assert [each["ran_with"]["rows_at_once"] for each in found] == [first, first, later, later]
    said = {"step": 0, "what": [f"rows_at_once was {first} and is {later}"]}
    assert found[2]["rounds_otherwise"] == found[3]["rounds_otherwise"] == said
    assert (
        f"this evaluation and that of step 0 round otherwise, which may change single completions: {said['what'][0]}"
        in (caplog.text)
    )
    scarce["rows"] = None
    run(tmp_path / "parts", 4, callbacks=[Less()], **many)
    scarce["rows"] = None
    run(tmp_path / "parts", 6, str(resolve_checkpoint("last", tmp_path / "parts")), **many)
    same(tmp_path / "parts", tmp_path / "whole", 6)


def test_a_limit_that_was_lowered_rises_again_and_a_resumed_run_does_the_same(tmp_path, scarce, monkeypatch):
    class LessOnce(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            scarce["tokens"] = 45 if trainer.global_step == 1 else None

    settings = {"evaluate": False, "token_budget": 256, "callbacks": [LessOnce()]}
    monkeypatch.setattr(Limit.__init__, "__defaults__", tuple(2 if v == 50 else v for v in Limit.__init__.__defaults__))
    run(tmp_path / "whole", 6, **settings)
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").open()))
    assert [float(row["memory/token_budget"]) for row in rows] == [256, 64, 128, 128, 256, 256]
    assert {float(row["memory/max_rollout_rows"]) for row in rows} == {8.0}
    run(tmp_path / "parts", 2, **settings)
    _, module, _ = run(tmp_path / "parts", 6, str(resolve_checkpoint("last", tmp_path / "parts")), **settings)
    assert module.limits.token_budget.value == 256
    rows = list(csv.DictReader((tmp_path / "parts" / "metrics.csv").open()))
    assert [float(row["memory/token_budget"]) for row in rows] == [256, 64, 128, 128, 256, 256]
    same(tmp_path / "parts", tmp_path / "whole", 6)


def test_no_memory_at_all_is_one_line(tmp_path, monkeypatch):
    def none(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Policy, "log_probs", lambda self, *args: none() if self.training else None)
    with pytest.raises(UserError, match=r"out of memory even with model.token_budget=1"):
        run(tmp_path, 2, evaluate=False, policy=PolicyConfig(self_test=False))


def test_metrics_survive_a_kill_in_the_middle_of_a_row(tmp_path):
    logger = MetricsCSV(str(tmp_path))
    for step in (1, 2, 3):
        logger.log_metrics({"a": step, "b": 0.5}, step=step)
    with logger.path.open("a") as file:
        file.write("4,0.")
    again = MetricsCSV(str(tmp_path))
    again.resume_after(2)
    again.log_metrics({"a": 3, "c": 1}, step=3)
    rows = list(csv.DictReader(logger.path.open()))
    assert [(r["step"], r["a"], r["b"], r["c"]) for r in rows] == [
        ("1", "1.0", "0.5", ""),
        ("2", "2.0", "0.5", ""),
        ("3", "3.0", "", "1.0"),
    ]


def test_a_step_does_not_repeat_the_metrics_of_another(tmp_path):
    """Lightning's own way to the loggers does: of two tasks, it repeats the metrics of the one that is not there."""
    two = {**SUMS, "leg_counting": TaskSpec(config={"max_animals": 4})}
    run(tmp_path, 6, evaluate=False, tasks=two)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    rollouts = pd.read_parquet(tmp_path / "rollouts")
    for step, row in enumerate(rows, 1):
        tasks = set(rollouts[rollouts.step == step].task)
        shown = {task for task in two if row.get(f"groups/{task}/with_variance")}
        assert shown == (tasks if len(tasks) > 1 else set())


def test_a_problem_whose_process_is_killed_from_outside_is_made_again():
    from rl_lightning.environments.problem_workers import ProblemWorkers

    plain = EnvironmentMixture(SUMS)
    workers = ProblemWorkers(Mortal(SUMS), 1, seconds=10)
    (pid,) = {workers._pool.call("pid", seconds=10).result()}
    workers.begin("chain_sum", 0, 5)
    os.kill(pid, signal.SIGKILL)
    assert workers("chain_sum", 0, 5) == plain.problem("chain_sum", 0, 5)
    workers.close()


class Mortal(EnvironmentMixture):
    """Says which process it is in, and takes its time."""

    def pid(self):
        return os.getpid()

    def problem(self, *args):
        time.sleep(0.5)
        return super().problem(*args)


def test_a_problem_that_takes_too_long_is_replaced_the_same_every_time(monkeypatch):
    from rl_lightning.environments.problem_workers import ProblemWorkers, prompts_from
    from rl_lightning.environments.stream import PromptStream

    mixture = Slow(SUMS)
    workers = ProblemWorkers(mixture, 1, seconds=3)
    stream = PromptStream(mixture, Words(), 0, problem=workers)
    prompts = prompts_from(stream, 0, ahead=3)
    got = [next(prompts) for _ in range(4)]
    prompts.close()
    workers.close()
    plain = PromptStream(EnvironmentMixture(SUMS), Words(), 0)
    assert [p.skipped["too_slow"] for p in got] == [0, 1, 0, 0]
    assert [p.problem for p in got[:1] + got[2:]] == [plain[k].problem for k in (0, 2, 3)]
    assert got[1].problem == plain.mixture.problem(*plain.candidate(1, attempt=1))


class Slow(EnvironmentMixture):
    """Hangs on the first candidate of slot 1."""

    def problem(self, task, item_seed, index, level=None):
        from rl_lightning.environments.stream import item_seed as seed_of

        if item_seed == seed_of("train", 0, 1, 0):
            while True:
                pass
        return super().problem(task, item_seed, index, level)
