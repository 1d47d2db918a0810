"""The Lightning module of a policy: load it, optimize its adapters or all its weights, save it, resume, log."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule

from rl_lightning.checkpointing.recorded import Recorded
from rl_lightning.checkpointing.resume import refuse_other_settings, restore_rng_states, rng_states, settings
from rl_lightning.distributed import Collective, SingleProcess, sum_gradients
from rl_lightning.loggers import MetricsCSV
from rl_lightning.memory import Device, MemoryLimits, Plan, make_plan, memory_of_cards
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.policy.adapters import adapter_hash, refuse_other_shapes
from rl_lightning.rollout import RolloutEngine, Sampling
from rl_lightning.rollout.memory import planned_eval_rows
from rl_lightning.rollout.self_test import self_test
from rl_lightning.training.learning_rate import Schedule, learning_rate_share
from rl_lightning.training.metrics import StepMeter
from rl_lightning.training.non_finite import MAX_IN_A_ROW, save_failed_batch
from rl_lightning.training.prompt_source import PromptSource, members
from rl_lightning.training.ranks import devices_of_replica, join_ranks, refuse_different_starts, states_to_parameters
from rl_lightning.training.step_callback import StepCallback
from rl_lightning.types import RolloutBatch, StepRecord, UserError, require

_ONLY_AT_THE_START = frozenset({"policy.adapter", "policy.reference", "policy.init_lora_weights"})
"""Settings that do not matter to the evaluation of a checkpoint, which has its own adapter."""

_SETTINGS = ("learning_rate", "lr_schedule", "warmup_steps", "weight_decay", "max_grad_norm", "seed")


class AdapterModule(Recorded, LightningModule):
    """A LightningModule that has a policy and trains its adapters, or all its weights. The loss is defined by its subclass.

    Args:
        policy: the model.
        sampling: how rollouts are sampled; memory is planned for their size.
        engine: generates the rollouts; it is started when the policy is loaded.
        token_budget: tokens of a micro-batch; auto: the largest that the memory plan allows.
        learning_rate: peak learning rate of AdamW.
        lr_schedule: the learning rate after the warm-up; see `learning_rate_share`.
        warmup_steps: optimizer steps over which the learning rate rises from zero.
        weight_decay: decoupled weight decay of AdamW.
        max_grad_norm: the L2 norm over all gradients is clipped to this.
        seed: seed of the sampler and of the adapters' initial values.
        measures_kl, trains_entropy: whether the loss needs the reference model, and whether it has an entropy bonus.

    Attributes:
        policy: the loaded policy, from `configure_model` on.
        plan: predicted memory on this device, and the settings that fit; from `configure_model` on.
        limits: the settings that bound memory, shared with the engine; from `configure_model` on.
        prompt_source: the data module, from `setup` on.
        collective: the ranks that train together; those of the trainer's strategy from `setup` on.
        loaded_step: the optimizer step of the loaded checkpoint, 0 without one; Lightning's own step counter stays 0 in
            `validate`.
        interrupted: whether a signal ended the run early.
        meter: sums and seconds of the current step.
        metrics: metrics of the last finished step.
    """

    policy: Policy
    plan: Plan
    limits: MemoryLimits
    prompt_source: PromptSource

    def __init__(
        self,
        policy: PolicyConfig,
        sampling: Sampling,
        engine: RolloutEngine,
        token_budget: int | Literal["auto"],
        learning_rate: float,
        lr_schedule: Schedule,
        warmup_steps: int,
        weight_decay: float,
        max_grad_norm: float,
        seed: int,
        measures_kl: bool,
        trains_entropy: bool,
    ) -> None:
        super().__init__()
        require("model.learning_rate", learning_rate, learning_rate > 0, "above 0")
        require("model.max_grad_norm", max_grad_norm, max_grad_norm > 0, "above 0")
        require("model.token_budget", token_budget, token_budget == "auto" or token_budget > 0, "above 0, or auto")
        require("model.warmup_steps", warmup_steps, warmup_steps >= 0, "0 or more")
        self.automatic_optimization = False
        # The state is that of the adapter, or none; on_load_checkpoint checks that it is complete.
        self.strict_loading = False
        self.policy_config, self.sampling, self.engine, self.token_budget = policy, sampling, engine, token_budget
        self.learning_rate, self.lr_schedule, self.warmup_steps = learning_rate, lr_schedule, warmup_steps
        self.weight_decay, self.max_grad_norm = weight_decay, max_grad_norm
        self.seed, self.measures_kl, self.trains_entropy = seed, measures_kl, trains_entropy
        self.generator = torch.Generator().manual_seed(seed)
        self.collective: Collective = SingleProcess()
        self.loaded_step, self.not_finite_in_a_row, self.interrupted = 0, 0, False
        self.meter, self.metrics = StepMeter(), dict[str, float]()
        self._record: StepRecord | None = None
        self._random_states: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Read the data module from the trainer; the module accesses it only as `prompt_source`.

        Raises:
            UserError: the strategy cannot be used, or the data module is not a `PromptSource`.
        """
        self.join(self.trainer, stage)
        source: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(source, PromptSource):
            lacks = ", ".join(name for name in members(PromptSource) if not hasattr(source, name))
            raise UserError(
                f"data: {type(source).__name__} is not a PromptSource (rl_lightning.training): it lacks {lacks}; use "
                "PromptDataModule, or implement them"
            )
        self.prompt_source = source

    def join(self, trainer: Any, stage: str) -> Collective:
        """The ranks that train together; the data module asks for them first, because Lightning sets it up before the module."""
        if getattr(trainer, "world_size", 1) > 1 and self.collective.world_size == 1:
            self.collective = join_ranks(trainer, stage)
        return self.collective

    def configure_model(self) -> None:
        """Plan memory and load the policy on its device, once; start the engine.

        Raises:
            UserError: the accelerator or the precision is not supported, the model or the adapter cannot be loaded, or sequences
                may be longer than the model attends over.
        """
        if not hasattr(self, "policy"):
            device = self.trainer.strategy.root_device
            kinds, precision = ("cpu", "cuda"), self.trainer.precision
            require("trainer.accelerator", device.type, device.type in kinds, "cpu, or gpu with a CUDA device")
            require("trainer.precision", precision, precision == "32-true", "32-true: see model.policy.dtype instead")
            devices = devices_of_replica(self.trainer.strategy, self.policy_config.devices_per_replica)
            self.plan = self._plan(memory_of_cards(devices, getattr(self.trainer.strategy, "num_processes", 1)))
            planned = self.plan.settings
            self.limits = MemoryLimits.of(planned.token_budget, planned.max_rollout_rows, planned_eval_rows(self.plan))
            config, layer_devices = self.plan.apply(self.policy_config), self.plan.layer_devices(devices)
            self.policy = Policy(config, device, self.seed, self.measures_kl, layer_devices)
            if self.policy_config.self_test:
                self_test(self.policy, self.plan.settings.merged)
            self.policy.refuse_longer(self.plan.step.prompt_tokens + self.plan.step.new_tokens)
            self.scaler = torch.amp.GradScaler(device.type, enabled=self.policy.compute_dtype == torch.float16)
        self.policy.opening = self.prompt_source.opening
        self.engine.start(self.policy, self.plan, self.limits)  # in each stage, because `teardown` closes it

    def _plan(self, device: Device) -> Plan:
        step = self.sampling.step_shape(self.prompt_source.prompts_per_step, self.prompt_source.max_prompt_tokens)
        rows, terms = self.sampling.max_rollout_rows, (self.measures_kl, self.trains_entropy)
        return make_plan(self.policy_config, step, self.token_budget, rows, device, self.engine, *terms)

    def configure_optimizers(self) -> Any:
        """AdamW on what is trained, with the learning-rate schedule."""
        rate = learning_rate_share(self.lr_schedule, self.warmup_steps, self.trainer.max_steps)
        optimizer = torch.optim.AdamW(
            self.policy.trained_parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, rate)}

    def step_optimizer(self, rollouts: RolloutBatch) -> None:
        """Sum the gradients over the ranks, clip them, and make an optimizer step.

        Without gradients (no group has reward variance), or where logits or the gradient are not finite, the weights stay the same
        bit for bit. The step counter advances nevertheless, because a converged run must end.

        Args:
            rollouts: the rollouts of the step, saved for inspection if too many updates in a row are skipped.

        Raises:
            UserError: logits or gradient were not finite in `MAX_IN_A_ROW` updates in a row.
        """
        optimizer: Any = self.optimizers()
        parameters = self.policy.trained_parameters()
        if sum_gradients(parameters, self.collective):
            self.scaler.unscale_(optimizer.optimizer)
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            if torch.isfinite(norm):
                self.meter.add("grad_norm", norm)
                self.not_finite_in_a_row = 0
            else:
                optimizer.zero_grad()
                self.meter.add("skipped_updates", 1)
                # At a scale above 1 the gradient may have overflowed only because the scaler is still searching for its scale.
                self.not_finite_in_a_row += self.scaler.get_scale() <= 1
            self.scaler.update()
        elif not rollouts.kept.any():  # in every group a completion's logits were not finite
            self.meter.add("skipped_updates", 1)
            self.not_finite_in_a_row += 1
        self.meter.add_all(updates=1, learning_rate=optimizer.param_groups[0]["lr"])
        optimizer.step()
        optimizer.zero_grad()
        self.policy.weights_changed()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        if self.not_finite_in_a_row == MAX_IN_A_ROW:
            file = Path(self.trainer.default_root_dir) / f"not_finite_step_{self.global_step}.pt"
            raise self.collective.broadcast(lambda: save_failed_batch(file, rollouts))

    @property
    def evaluator(self) -> RolloutEngine:
        """The engine that evaluates."""
        return self.engine.evaluator()

    @property
    def reached_max_steps(self) -> bool:
        """Whether the last optimizer step has been made."""
        return self.global_step == self.trainer.max_steps

    def finish_step(self, record: StepRecord, metrics: dict[str, float]) -> None:
        """Pass a finished step to the callbacks, and its metrics, including theirs, to Lightning's `callback_metrics`, which for
        example a ModelCheckpoint monitors."""
        self.limits.end_step()
        self._record, self.metrics = record, metrics
        for callback in self._step_callbacks():
            self.metrics |= callback.step_metrics(self.trainer, self, record)
        # Lightning's `log` creates an object for each metric, which takes longer than some decode steps.
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.metrics.items()})
        for callback in self._step_callbacks():
            callback.on_step(self.trainer, self, record)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Tell the callbacks that the step has ended, and log its metrics. They are passed to the loggers directly, because
        Lightning would repeat the old value of a metric that this step does not have."""
        assert self._record is not None
        for callback in self._step_callbacks():
            callback.on_step_end(self.trainer, self, self._record)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        for logger in self.trainer.loggers:
            if isinstance(logger, MetricsCSV) or (every and (batch_idx + 1) % every == 0):
                logger.log_metrics(self.metrics, step=self.global_step)

    def _step_callbacks(self) -> list[StepCallback]:
        return [callback for callback in self.trainer.callbacks if isinstance(callback, StepCallback)]  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """Check that all ranks begin alike."""
        refuse_different_starts(self, self.collective)
        self._settings_at_start = self.settings()  # a reward function may have state that changes when it is called

    def on_train_start(self) -> None:
        """Restore the RNG states of a resumed run, when all setup that uses random numbers is done."""
        states_to_parameters(self.optimizers().optimizer)  # type: ignore[union-attr]
        if self._random_states:
            restore_rng_states(self._random_states)
            self._random_states = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only the adapters, and add the states that decide what is sampled next. Where all weights are trained, they are in
        the model's own file beside the checkpoint, and not in it too."""
        kept = set() if self.policy.trains_all else self._adapters()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}
        checkpoint["sampler"] = self.generator.get_state()
        checkpoint["loss_scaler"] = self.scaler.state_dict()
        checkpoint["rng_states"] = rng_states()
        checkpoint["memory_limits"] = self.limits.state()
        checkpoint["not_finite_in_a_row"] = self.not_finite_in_a_row
        checkpoint["trained_with"] = self._settings_at_start

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sampler and the loss scaler, and the weights where all are trained; refuse an adapter of another shape, which
        non-strict loading would silently ignore.

        Raises:
            UserError: the checkpoint was trained with other settings, or its weights do not fit this model.
        """
        resuming, now = self.trainer.state.fn == "fit", self.settings()

        def matters(name: str) -> bool:
            return resuming or (name.startswith("policy.") and name not in _ONLY_AT_THE_START)

        refuse_other_settings(*({k: v for k, v in s.items() if matters(k)} for s in (checkpoint["trained_with"], now)))
        if self.policy.trains_all:
            self.policy.load(Path(str(self.trainer.ckpt_path)).parent)
        else:
            refuse_other_shapes(self._adapters(), {name: t.shape for name, t in checkpoint["state_dict"].items()})
        self.loaded_step = checkpoint["global_step"]
        self.generator.set_state(checkpoint["sampler"])
        if self.scaler.is_enabled() and checkpoint["loss_scaler"]:  # empty if it was saved without loss scaling
            self.scaler.load_state_dict(checkpoint["loss_scaler"])
        self.not_finite_in_a_row = checkpoint["not_finite_in_a_row"]
        if resuming:
            self.limits.restore(checkpoint.get("memory_limits", self.limits.state()))  # older ones have none
            self._random_states = checkpoint["rng_states"]  # restored in on_train_start, after setup

    def _adapters(self) -> dict[str, torch.Size]:
        return {name: p.shape for name, p in self.named_parameters() if p.requires_grad}

    def settings(self) -> dict[str, str]:
        """The settings that a resumed run must share with its checkpoint, by dotted name; of the adapter that it began from the
        hash, because its directory may have moved."""
        own = {name: getattr(self, name) for name in _SETTINGS}
        engine, adapter = type(self.engine).__qualname__, self.policy_config.adapter
        found = settings(
            policy=self.policy_config, sampling=self.sampling, engine=engine, data=self.prompt_source.settings(), **own
        )
        return found | {
            "policy.adapter": "None" if adapter is None else f"SHA-256 {adapter_hash(Path(adapter).expanduser())}"
        }
