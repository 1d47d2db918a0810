"""A run of a few steps with a real trainer, in which one part is another than the shipped one."""

from __future__ import annotations

from lightning.pytorch import Trainer, seed_everything

from rl_lightning.data import PromptDataModule
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import Reward
from rl_lightning.training import StepCallback
from rl_lightning.types import StepRecord

SUMS = {"chain_sum": TaskSpec(config={"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1})}


class LengthReward(Reward):
    """Differs within any group whose completions differ in length, so that groups have reward variance."""

    def __call__(self, problem, completion, score):
        return len(completion) / 10


class Records(StepCallback):
    """Keeps every step's record."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def on_step(self, trainer, pl_module, record) -> None:
        self.records.append(record)


def data(datasets=SUMS, prompts: int = 2) -> PromptDataModule:
    return PromptDataModule(datasets, prompts_per_step=prompts, system_prompt="", num_workers=0, eval_num_samples=2)


def module(**settings) -> GRPOModule:
    defaults = {
        "policy": PolicyConfig("tiny", quantization="none"),
        "sampling": Sampling(4, 12),
        "reward": LengthReward(),
        "learning_rate": 1e-3,
        "score_workers": 1,
    }
    return GRPOModule(**defaults | settings)


def fit(root, module: GRPOModule, data: PromptDataModule, max_steps: int = 1, callbacks=()) -> list[StepRecord]:
    """Train, and return the records of the steps."""
    seed_everything(0)
    records = Records()
    Trainer(
        default_root_dir=root,
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[records, *callbacks],
    ).fit(module, data)
    return records.records


def adapters(module: GRPOModule) -> list:
    return [parameter.detach().clone() for parameter in module.policy.trained_parameters()]
