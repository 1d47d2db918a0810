"""Training in float16, with several updates a rollout and a schedule, against a plain loop by torch's own recipe."""

from __future__ import annotations

import csv
from functools import partial

import pytest
import torch

from rl_lightning.checkpointing.checkpoints import resolve_checkpoint
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.policy import Policy, PolicyConfig, pack
from tests.runs import adapters, run, same

STEPS, RATE, WARMUP, CLIP = 12, 1e-3, 3, 0.2
SCALE, GROWTH = 2.0**24, 2
"""So high that gradients overflow at first, and again whenever the scale has grown."""

CONFIG = PolicyConfig("tiny", quantization="none", dtype="float16", self_test=False)
SETTINGS = {
    "policy": CONFIG,
    "objective": Objective(num_iterations=2),
    "learning_rate": RATE,
    "lr_schedule": "linear",
    "warmup_steps": WARMUP,
    "weight_decay": 0.1,
    "max_grad_norm": 0.05,
    "token_budget": 120,
    "evaluate": False,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run: what each update was given, and the scale after it."""
    root, given, scales = tmp_path_factory.mktemp("scaled"), [], []
    accumulate, step = GRPOModule.accumulate_gradients, GRPOModule.step_optimizer

    def recorded(self, rollout, advantages, weights, logprobs, first):
        given.append((rollout, advantages, weights, first))
        accumulate(self, rollout, advantages, weights, logprobs, first)

    def stepped(self, rollouts):
        step(self, rollouts)
        scales.append(self.scaler.get_scale())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=SCALE, growth_interval=GROWTH))
        patch.setattr(GRPOModule, "accumulate_gradients", recorded)
        patch.setattr(GRPOModule, "step_optimizer", stepped)
        run(root, STEPS, **SETTINGS)
    return root, given, scales


def rate(update: int) -> float:
    """Of the update with this number, from 0 on: a rise over the warm-up times a fall to zero at the last step."""
    return RATE * min(1, (update + 1) / (WARMUP + 1)) * (1 - update / STEPS)


def test_updates_are_skipped_and_taken_as_by_a_plain_loop(trained):
    root, given, scales = trained
    policy = Policy(CONFIG, torch.device("cpu"))
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=GROWTH)
    adam = torch.optim.AdamW(policy.trained_parameters(), lr=RATE, weight_decay=0.1)
    found, old = [], {}
    for update, (rollout, advantages, weights, first) in enumerate(given):
        adam.param_groups[0]["lr"] = rate(update)
        for number, micro in enumerate(pack(rollout, weights.any(dim=1).nonzero().flatten(), 120)):
            logps, _ = policy.log_probs(micro, 1.0)
            if first:
                old[number] = logps.detach()
            ratio, gain = (logps - old[number]).exp(), advantages.flatten()[micro.row_of]
            surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain)
            scaler.scale(-(weights[micro.row_of, micro.column_of] * surrogate).sum()).backward()
        scaler.unscale_(adam)
        torch.nn.utils.clip_grad_norm_(policy.trained_parameters(), 0.05)
        scaler.step(adam)
        scaler.update()
        adam.zero_grad()
        found.append(scaler.get_scale())
    assert len(given) == STEPS
    assert found == scales
    taken = [after >= before for before, after in zip([SCALE, *scales], scales, strict=False)]
    assert 3 <= sum(taken) <= STEPS - 3
    assert taken != sorted(taken)  # some are skipped after others were taken
    rows = list(csv.DictReader((root / "metrics.csv").open()))
    skipped = [2 - sum(taken[i : i + 2]) for i in range(0, STEPS, 2)]
    assert [float(row["policy/skipped_updates"]) for row in rows] == skipped
    rates = [(rate(i) + rate(i + 1)) / 2 for i in range(0, STEPS, 2)]
    assert [float(row["policy/learning_rate"]) for row in rows] == pytest.approx(rates)
    ours = adapters(root, STEPS)
    for name, parameter in policy.model.named_parameters():
        if parameter.requires_grad:
            kept = ours[name.replace(".default", "")]
            # Adam divides by a gradient's size, so rounding of the smallest ones moves a weight by up to the learning rate.
            assert (kept - parameter).norm() <= 0.01 * parameter.norm(), name
    assert any(t.any() for name, t in ours.items() if "lora_B" in name)


class Killed(Exception):
    """In place of a signal: a run that ended by itself would have a schedule that ends there."""


@pytest.mark.parametrize("stop", [2, 6])
def test_a_resumed_run_goes_on_with_the_scale_of_the_checkpoint(trained, tmp_path, monkeypatch, stop):
    root, _, scales = trained
    monkeypatch.setattr(
        torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=SCALE, growth_interval=GROWTH)
    )
    step = GRPOModule.step_optimizer

    def killed(self, rollouts):
        if self.global_step == stop:
            raise Killed
        step(self, rollouts)

    with monkeypatch.context() as patch:
        patch.setattr(GRPOModule, "step_optimizer", killed)
        with pytest.raises(Killed):
            run(tmp_path, STEPS, **SETTINGS)
    _, module, _ = run(tmp_path, STEPS, str(resolve_checkpoint("last", tmp_path)), **SETTINGS)
    assert module.scaler.get_scale() == scales[-1]
    same(tmp_path, root, STEPS)
