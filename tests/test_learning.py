"""The product in one test: train, and the policy answers held-out problems better than before."""

from __future__ import annotations

import json
from math import comb

from lightning.pytorch import Trainer, seed_everything

from rl_lightning.callbacks import FixedEval
from rl_lightning.data import PromptDataModule
from rl_lightning.module import GRPOModule
from rl_lightning.rollout import Sampling


def sign_test(gained: int, lost: int) -> float:
    """One-sided exact p-value: how likely are `gained` or more of the changed problems to be gains by chance?"""
    n = gained + lost
    return sum(comb(n, k) for k in range(gained, n + 1)) / 2**n


def test_held_out_accuracy_rises_significantly(tmp_path, datasets):
    """With the advantage's sign flipped nothing is gained, and this test fails: see docs/experiments.md."""
    seed_everything(0)
    tasks = {name: datasets[name] for name in ("basic_arithmetic", "chain_sum")}
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_steps=14,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[FixedEval(1000)],
    )
    module = GRPOModule(sampling=Sampling(num_generations=16, max_new_tokens=72), learning_rate=1e-3)
    trainer.fit(module, PromptDataModule(tasks, 8, system_prompt="", num_workers=0, eval_num_samples=60))
    before, after = (
        json.loads((tmp_path / "eval_results" / f"eval_step_{n}.json").read_text())["rows"] for n in (0, 14)
    )
    pairs = [(b["exact"], a["exact"]) for b, a in zip(before, after, strict=True)]
    gained, lost = pairs.count((0.0, 1.0)), pairs.count((1.0, 0.0))
    assert sign_test(gained, lost) < 0.01, f"gained {gained}, lost {lost} of {len(pairs)}"
