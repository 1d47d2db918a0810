"""A real model, SmolLM2-135M-Instruct: its tokenizer, chat template and weights, where scripts/smollm2.py has made it.

The environment variable RL_LIGHTNING_SMOLLM2 names another directory.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rl_lightning.cli.main import main
from rl_lightning.environments.answer_formats import answer_format
from rl_lightning.environments.batches import collate
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import PromptStream
from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.policy.end_tokens import end_tokens
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.rollout.policy_decoder import RolloutNetwork, decoder_of
from rl_lightning.rollout.self_test import self_test
from tests.conftest import ROOT, generate, shake
from tests.runs import adapters

MODEL = Path(os.environ.get("RL_LIGHTNING_SMOLLM2") or ROOT / "models" / "SmolLM2-135M-Instruct")
CONFIG = ROOT / "configs" / "smollm2-135m.yaml"
END = "<|im_end|>"
SYSTEM_PROMPT = answer_format("tags").instructions

pytestmark = [
    pytest.mark.smollm2,
    pytest.mark.skipif(not MODEL.is_dir(), reason=f"{MODEL} is not there; python scripts/smollm2.py makes it"),
]


@pytest.fixture(scope="module")
def policy() -> Policy:
    """In float32 without quantisation, with adapters that matter a little. Read only."""
    policy = Policy(PolicyConfig(str(MODEL), quantization="none", dtype="float32"), torch.device("cpu"))
    shake(policy, scale=0.002)
    return policy


@pytest.fixture(scope="module")
def plain(policy, tmp_path_factory) -> PeftModel:
    """The same policy as plain transformers and PEFT load it."""
    policy.save(adapter := tmp_path_factory.mktemp("adapter"))
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager")
    return PeftModel.from_pretrained(base, adapter).eval()


@pytest.fixture(scope="module")
def batch(policy):
    """Two problems of one or two digits."""
    mixture = EnvironmentMixture(
        {"basic_arithmetic": TaskSpec(config={"min_terms": 2, "max_terms": 2, "max_digits": 2})}
    )
    stream = PromptStream(mixture, PromptTemplate(policy.tokenizer, SYSTEM_PROMPT), seed=0)
    return collate([stream[k] for k in range(2)])


def unpadded(rollout, row) -> tuple[torch.Tensor, torch.Tensor]:
    """The prompt and the completion of a row."""
    prompt = row // rollout.group_size
    return (
        rollout.prompt_ids[prompt, : int(rollout.prompt_lengths[prompt])],
        rollout.completion_ids[row, : int(rollout.lengths[row])],
    )


def test_the_prompt_is_what_the_template_renders(policy):
    ids = PromptTemplate(policy.tokenizer, SYSTEM_PROMPT).token_ids("What is 12 + 7?")
    turns = f"<|im_start|>system\n{SYSTEM_PROMPT}{END}\n<|im_start|>user\nWhat is 12 + 7?{END}\n<|im_start|>assistant\n"
    assert policy.tokenizer.decode(ids) == turns
    assert policy.tokenizer.convert_ids_to_tokens(ids[:2]) == [
        "<|im_start|>",
        "system",
    ]  # no second token that begins the text
    assert len(policy.head.weight) == policy.head.words == 49152 > max(ids)


def test_digits_are_split_off_before_all_else(policy):
    """As in the original's tokenizer; in what transformers alone makes of the GGUF, "\\n\\n3" is two line feeds and the digit."""
    for text, tokens in {" 12": ["Ġ", "1", "2"], ":\n\n37": [":", "ĊĊ", "3", "7"], "   4": ["ĠĠĠ", "4"]}.items():
        ids = policy.tokenizer(text)["input_ids"]
        assert policy.tokenizer.convert_ids_to_tokens(ids) == tokens
        assert policy.tokenizer.decode(ids) == text


def test_the_end_of_a_turn_ends_a_completion(policy):
    end = policy.tokenizer.convert_tokens_to_ids(END)
    assert end_tokens(policy.model, policy.tokenizer) == {
        end: ["generation_config", "config", "tokenizer", "chat template"]
    }
    assert policy.eos_token_ids.tolist() == [end]


@pytest.mark.parametrize(
    ("dtype", "quantization", "merged"),
    [("float32", "none", True), ("bfloat16", "none", False), ("bfloat16", "nf4", True)],
)
def test_the_self_test_passes_and_rollouts_run_on_their_own_network(dtype, quantization, merged):
    policy = Policy(PolicyConfig(str(MODEL), quantization=quantization, dtype=dtype), torch.device("cpu"))
    shake(policy, scale=0.002)
    self_test(policy, merged)
    assert policy.own_network
    assert isinstance(decoder_of(policy, merged), RolloutNetwork)


@torch.no_grad()
def test_log_probs_of_rollout_and_update_equal_plain_transformers(policy, plain, batch):
    rollout = generate(policy, batch, Sampling(num_generations=2, max_new_tokens=12))
    (micro,) = pack(rollout, torch.arange(4), 10**6)
    updated = torch.zeros(rollout.mask.shape)
    updated[micro.row_of, micro.column_of] = policy.log_probs(micro, 1.0)[0]
    for row in range(4):
        prompt, completion = unpadded(rollout, row)
        logits = plain(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(dim=-1).gather(1, completion[:, None]).squeeze(1)
        assert (updated[row, : len(completion)] - expected).abs().max() < 1e-4
        assert (rollout.sampling_logps[row, : len(completion)] - expected).abs().max() < 1e-4


@torch.no_grad()
def test_greedy_completions_equal_generate_token_for_token(policy, plain, batch):
    engine = LocalEngine()
    engine.start(policy)
    engine.sync_weights()
    rollout = engine.generate(batch, Sampling(max_new_tokens=20), None)
    for row in range(len(batch)):
        prompt, completion = unpadded(rollout, row)
        expected = plain.generate(
            input_ids=prompt[None], attention_mask=torch.ones(1, len(prompt)), max_new_tokens=20, do_sample=False
        )
        assert torch.equal(completion, expected[0, len(prompt) :])


def train_smollm2_once(root: Path, prompts: int) -> int:
    """One step through the command line; the exit status."""
    settings = {
        "trainer.default_root_dir": root,
        "trainer.max_steps": 1,
        "trainer.enable_progress_bar": "false",
        "model.policy.model_name_or_path": MODEL,
        "model.reward": "tests.runs.LengthReward",
        "model.warmup_steps": 0,
        "model.sampling.num_generations": 4,
        "model.sampling.max_new_tokens": 12,
        "data.prompts_per_step": prompts,
        "data.num_workers": 0,
        "data.eval_num_samples": 2,
    }
    return main(["fit", "--config", str(CONFIG), *(f"--{name}={value}" for name, value in settings.items())])


def test_a_step_through_the_command_line(tmp_path):
    """With a reward by which every group differs."""
    assert train_smollm2_once(tmp_path, prompts=2) == 0
    assert len(pd.read_parquet(tmp_path / "rollouts")) == 8
    (row,) = [row for row in csv.DictReader((tmp_path / "metrics.csv").open()) if row["reward/mean"]]
    assert float(row["policy/logprob_mismatch"]) < 1e-4
    assert all(weight.any() for name, weight in adapters(tmp_path, 1).items() if "lora_B" in name)
