"""A run of a few steps with a real trainer, and what it leaves, for the tests of whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from safetensors.torch import load_file

from rl_lightning.callbacks import (
    AdapterCheckpoint,
    CurriculumLog,
    FixedEval,
    GroupVariance,
    MemoryPlan,
    RolloutLog,
    RunDirectory,
)
from rl_lightning.data import PromptDataModule
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.loggers.metrics_csv import MetricsCSV
from rl_lightning.module import GRPOModule
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import Reward

SUMS = {"chain_sum": TaskSpec(config={"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1})}


class LengthReward(Reward):
    """Differs within any group whose completions differ in length, so that every step has reward variance."""

    def __call__(self, problem, completion, score):
        return len(completion) / 10


def run(
    root: Path,
    max_steps: int,
    ckpt_path: str | None = None,
    workers: int = 0,
    evaluate: bool = True,
    callbacks=(),
    tasks=SUMS,
    samples=None,
    curriculum=None,
    data={},  # noqa: B006
    save_steps=2,
    checkpoint=None,
    **model,
):
    seed_everything(0)
    model = {"reward": LengthReward(), "learning_rate": 1e-3, "sampling": Sampling(4, 12)} | model
    module = GRPOModule(**model)
    asked = {"system_prompt": "", "num_workers": workers, "eval_num_samples": 5, "curriculum": curriculum} | data
    data = PromptDataModule(tasks, prompts_per_step=2, **asked)
    trainer = Trainer(
        default_root_dir=root,
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        log_every_n_steps=1,
        logger=MetricsCSV(str(root)),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            GroupVariance(),
            CurriculumLog(),
            MemoryPlan(),
            RolloutLog(),
            *([FixedEval(2, samples)] if evaluate else []),
            RunDirectory(),
            checkpoint or AdapterCheckpoint(save_steps=save_steps),
            *callbacks,
        ],
    )
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer, module, data


def evaluated(root: Path, name: str = "eval_step_5") -> dict[str, object]:
    """An evaluation but for what it cost."""
    found = json.loads((root / "eval_results" / f"{name}.json").read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "share_of_run", "of")}


def adapters(root: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(root / f"checkpoint-{step}" / "adapter_model.safetensors")


def weights_of_whole_model(root: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(root / f"checkpoint-{step}" / "model.safetensors")


def same(ours: Path, theirs: Path, steps: int) -> None:
    """Completions, weights and evaluations to the last bit."""
    for path in (theirs / "rollouts").iterdir():
        assert (ours / "rollouts" / path.name).read_bytes() == path.read_bytes(), path.name
    for name in (theirs / "eval_results").iterdir() if (theirs / "eval_results").exists() else []:
        assert evaluated(ours, name.stem) == evaluated(theirs, name.stem)
    a, b = adapters(ours, steps), adapters(theirs, steps)
    assert all(torch.equal(a[name], b[name]) for name in b)
