"""A step in which all weights are trained, against a plain loop in torch; and runs of such steps: resumed, refused."""

from __future__ import annotations

import csv

import pytest
import torch
from transformers import AutoModelForCausalLM

from rl_lightning.callbacks import Diagnostics
from rl_lightning.checkpointing.checkpoints import resolve_checkpoint
from rl_lightning.objective import Objective, group_advantages, token_weights
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.training.metrics import StepMeter
from rl_lightning.types import TrainerLogprobs, UserError
from tests.conftest import generate
from tests.random_models import random_model
from tests.runs import run, weights_of_whole_model
from tests.test_module import REWARDS, SAMPLING, make_module

RATE, DECAY = 1e-3, 0.1
FULL = {"quantization": "none", "lora_r": 0}


def plain_loss(model, reference, rollout, old, words, beta, bonus) -> torch.Tensor:
    """The clipped surrogate, the KL to the reference and the entropy bonus of each token of each completion, from full logits."""
    total, advantages = 0.0, group_advantages(REWARDS).flatten()
    for n in range(24):
        prompt = rollout.prompt_ids[n // 4, : rollout.prompt_lengths[n // 4]]
        completion = rollout.completion_ids[n][rollout.mask[n]]
        ids = torch.cat([prompt, completion])[None]
        log_probs, base = (
            each(input_ids=ids).logits[0, len(prompt) - 1 : -1, :words].log_softmax(-1) for each in (model, reference)
        )
        logps, ref = (each.gather(1, completion[:, None]).squeeze(1) for each in (log_probs, base.detach()))
        ratio = (logps - (logps.detach() if old is None else old[n][rollout.mask[n]])).exp()
        surrogate = torch.minimum(ratio * advantages[n], ratio.clamp(0.8, 1.2) * advantages[n])
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        kl = (ref - logps).exp() - (ref - logps) - 1
        total = total + (beta * kl - surrogate - bonus * entropy).sum() / rollout.mask.sum()
    return total


@pytest.mark.parametrize(("tied", "checkpointing"), [(True, "on"), (False, "off")])
def test_two_updates_equal_those_of_a_plain_loop(tied, checkpointing, batch, tmp_path):
    """In float32; with KL, entropy and weight decay. The second has ratios and a KL that are not trivial."""
    directory = str(random_model("qwen3", tmp_path, tie_word_embeddings=tied, num_hidden_layers=2))
    config = PolicyConfig(directory, gradient_checkpointing=checkpointing, **FULL)
    policy = Policy(config, torch.device("cpu"), measures_kl=True)
    model, reference = (AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32) for _ in range(2))
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    start = [p.detach().clone() for p in model.parameters()]
    objective = Objective(beta=0.5, entropy_bonus=0.05, num_iterations=2)
    module, rollout = make_module(policy, token_budget=200, objective=objective), generate(policy, batch, SAMPLING)
    weights, trainer = token_weights(rollout.mask, "dapo", SAMPLING.max_new_tokens), TrainerLogprobs.empty(rollout)
    optimizers = [
        torch.optim.AdamW(list(parameters), lr=RATE, weight_decay=DECAY)
        for parameters in (policy.trained_parameters(), model.parameters())
    ]
    for first in (True, False):
        module.meter = StepMeter()
        module.accumulate_gradients(rollout, group_advantages(REWARDS), weights, trainer, first=first)
        old = None if first else trainer.logps
        plain_loss(model, reference, rollout, old, policy.head.words, 0.5, 0.05).backward()
        for ours, theirs in zip(policy.trained_parameters(), model.parameters(), strict=True):
            assert (ours.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        policy.weights_changed()
    for ours, theirs, before in zip(policy.trained_parameters(), model.parameters(), start, strict=True):
        assert (ours - theirs).norm() <= 1e-2 * (theirs - before).norm()  # Adam makes much of small gradients
        assert (theirs - before).norm() > 0


def full_run(root, steps, last=False, **model):
    policy = PolicyConfig(**FULL, **model.pop("policy", {}))
    ckpt_path = str(resolve_checkpoint("last", root)) if last else None
    return run(root, steps, ckpt_path=ckpt_path, evaluate=False, policy=policy, **model)


@pytest.mark.parametrize(
    ("policy", "objective"),
    [({}, Objective(beta=0.05, num_iterations=2)), ({"dtype": "bfloat16"}, Objective(beta=0.05))],
    ids=["float32", "bfloat16"],
)
def test_a_resumed_run_is_the_same_to_the_last_bit(tmp_path, policy, objective):
    """The reference is the base in both, and not the weights that were resumed from."""
    full_run(tmp_path / "whole", 3, policy=policy, objective=objective)
    full_run(tmp_path / "halves", 2, policy=policy, objective=objective)
    full_run(tmp_path / "halves", 3, last=True, policy=policy, objective=objective, callbacks=[Diagnostics()])
    for path in (tmp_path / "whole" / "rollouts").iterdir():
        assert (tmp_path / "halves" / "rollouts" / path.name).read_bytes() == path.read_bytes()
    ours, theirs = (weights_of_whole_model(tmp_path / name, 3) for name in ("halves", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    rows = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("whole", "halves")]
    assert rows[0][-1]["policy/kl"] == rows[1][-1]["policy/kl"] != rows[0][0]["policy/kl"]
    assert float(rows[0][-1]["policy/logprob_mismatch"]) < (1e-5 if not policy else 0.05)
    assert 1e-4 < float(rows[1][-1]["policy/moved_rms"]) < 1e-2
    state = torch.load(tmp_path / "whole" / "checkpoint-3" / "trainer.ckpt", weights_only=True)
    assert not state["state_dict"]  # the weights are in the directory once
    assert (tmp_path / "whole" / "checkpoint-3" / "tokenizer.json").exists()


def test_adapters_and_whole_models_do_not_resume_each_other(tmp_path):
    full_run(tmp_path / "full", 1)
    run(tmp_path / "lora", 1, evaluate=False, policy=PolicyConfig(quantization="none"))
    last = str(resolve_checkpoint("last", tmp_path / "full"))
    with pytest.raises(UserError, match="ckpt_path: .*policy.lora_r was 0 and is 16; set them back") as refused:
        run(tmp_path / "full", 2, last, evaluate=False, policy=PolicyConfig(quantization="none"))
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="ckpt_path: .*policy.lora_r was 16 and is 0; set them back"):
        full_run(tmp_path / "lora", 2, last=True)
