"""What Lightning asks of a module that trains adapters: load it, give it an optimizer, keep it and take it up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from rl_lightning.objective import Objective
from rl_lightning.policy import Policy, PolicyConfig, Schedule, learning_rate_share
from rl_lightning.policy.adapters import load_adapter
from rl_lightning.policy.plan import Card, Plan, card_of, make_plan, step_work
from rl_lightning.resume import random_states, refuse_other_settings, restore_random_states, settings
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import Reward
from rl_lightning.types import UserError, require

_SETTINGS = ("learning_rate", "lr_schedule", "warmup_steps", "weight_decay", "max_grad_norm", "seed")


class TrainablePolicy(LightningModule):
    """Owns the policy; `AnsweringPolicy` is what it writes, `GRPOModule` what it learns from that.

    Attributes:
        loaded_step: the optimizer step of the checkpoint that was loaded, 0 where none was: Lightning's own clock rests in
            `validate`.
        plan: what the model needs on this device, and the settings that fit; from `configure_model` on.
        interrupted: whether a signal ended the run before its time.
        adapter: a PEFT adapter's directory to begin with, None for fresh adapters; see `validate --ckpt_path`.
        metrics: of the step that has just been made; callbacks add theirs by `report` in `on_train_batch_end`.
    """

    policy_config: PolicyConfig
    sampling: Sampling
    objective: Objective
    reward: Reward
    learning_rate: float
    lr_schedule: Schedule
    warmup_steps: int
    weight_decay: float
    token_budget: Any  # "auto" until the plan is made
    seed: int
    generator: torch.Generator
    plan: Plan

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold the adapter only; on_load_checkpoint checks that it is whole
        self.loaded_step = 0
        self.not_finite_in_a_row = 0
        self.interrupted = False
        self.adapter: Path | None = None
        self.metrics: dict[str, float] = {}
        self._random_states: dict[str, Any] = {}

    def configure_model(self) -> None:
        """Load the policy once, where it will live."""
        if not hasattr(self, "policy"):
            device = self.trainer.strategy.root_device
            kinds, precision = ("cpu", "cuda"), self.trainer.precision
            require("trainer.accelerator", device.type, device.type in kinds, "cpu, or gpu with a CUDA device")
            require("trainer.precision", precision, precision == "32-true", "32-true: see model.policy.dtype instead")
            self.plan = self._planned(card_of(device))
            self.token_budget = self.plan.settings.token_budget
            self.sampling.max_rollout_rows = self.plan.settings.max_rollout_rows
            self.policy = Policy(self.plan.apply(self.policy_config), device, self.seed)
            self.policy.refuse_longer(self.plan.work.prompt_tokens + self.sampling.max_new_tokens)
            if self.adapter is not None:
                load_adapter(self.policy.model, self.adapter)
            self.scaler = torch.amp.GradScaler(device.type, enabled=self.policy.compute_dtype == torch.float16)

    def _planned(self, card: Card) -> Plan:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        work = step_work(self.sampling, data.prompts_per_step, data.max_prompt_tokens)
        return make_plan(self.policy_config, work, self.token_budget, self.sampling.max_rollout_rows, card)

    def configure_optimizers(self) -> Any:
        """AdamW on the adapters."""
        rate = learning_rate_share(self.lr_schedule, self.warmup_steps, self.trainer.max_steps)
        optimizer = torch.optim.AdamW(
            self.policy.adapter_parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, rate)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adapters only, and the states that decide what is sampled next."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["sampler"] = self.generator.get_state()
        checkpoint["loss_scaler"] = self.scaler.state_dict()
        checkpoint["random_states"] = random_states()
        checkpoint["not_finite_in_a_row"] = self.not_finite_in_a_row
        checkpoint["trained_with"] = self._settings_at_start

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse what was trained otherwise, or an adapter of another shape, which non-strict loading would drop silently."""
        resuming, now = self.trainer.state.fn == "fit", self.settings()
        matters = (lambda name: True) if resuming else (lambda name: name.startswith("policy."))
        refuse_other_settings(*({k: v for k, v in s.items() if matters(k)} for s in (checkpoint["trained_with"], now)))
        trained = {name: p.shape for name, p in self.named_parameters() if p.requires_grad}
        found = {name: t.shape for name, t in checkpoint["state_dict"].items()}
        if trained != found:
            wrong = sorted(n for n in trained.keys() | found.keys() if trained.get(n) != found.get(n))
            raise UserError(
                f"ckpt_path: the checkpoint's adapter does not fit this model: {len(wrong)} of {len(trained)} tensors differ, "
                f"the first is {wrong[0]}; use the model.policy section that it was trained with"
            )
        self.loaded_step = checkpoint["global_step"]
        self.generator.set_state(checkpoint["sampler"])
        if self.scaler.is_enabled() and checkpoint["loss_scaler"]:  # empty where it was written without loss scaling
            self.scaler.load_state_dict(checkpoint["loss_scaler"])
        self.not_finite_in_a_row = checkpoint["not_finite_in_a_row"]
        if resuming:
            self._random_states = checkpoint["random_states"]  # set when all is set up, which may draw

    def on_train_start(self) -> None:
        """From here on every random number is the run's."""
        self._settings_at_start = self.settings()  # a reward of the user's may keep count of something
        if self._random_states:
            restore_random_states(self._random_states)
            self._random_states = {}

    def report(self, metrics: dict[str, float]) -> None:
        """Add to the step's metrics, and show them to whoever watches Lightning's `callback_metrics`."""
        self.metrics |= metrics
        # Lightning's `log` would make an object of each, which takes longer than some decode steps.
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Hand the step's metrics on, with what the callbacks have added. Straight to the loggers: Lightning's way there
        repeats the old value of a metric that this step does not have."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (batch_idx + 1) % every == 0:
            for logger in self.trainer.loggers:
                logger.log_metrics(self.metrics, step=self.global_step)

    def settings(self) -> dict[str, str]:
        """What a run must keep to be the same run."""
        data = self.trainer.datamodule.settings()  # type: ignore[attr-defined]
        own = {name: getattr(self, name) for name in _SETTINGS}
        parts = {"policy": self.policy_config, "sampling": self.sampling, "objective": self.objective}
        return settings(**parts, reward=self.reward, data=data, **own)
