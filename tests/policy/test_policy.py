"""The policy against plain PEFT and transformers, and what it refuses."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from peft import PeftModel
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from rl_lightning.memory import Device, make_plan
from rl_lightning.policy import MicroBatch, Policy, PolicyConfig, pack
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.types import UserError
from tests.conftest import generate, shake

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def micro(policy, batch) -> MicroBatch:
    """Twelve short completions as one micro-batch."""
    (micro,) = pack(generate(policy, batch, Sampling(2, 8)), torch.arange(12), 10_000)
    return micro


def test_adapter_directory_loads_with_plain_peft_and_gives_the_same_logits(policy, batch, tmp_path):
    policy.save(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(EMBEDDED["tiny"], dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, tmp_path).eval()
    ids = batch.prompt_ids[:, : int(batch.prompt_lengths.min())]
    with torch.no_grad():
        ours, theirs = policy.model(input_ids=ids).logits, plain(input_ids=ids).logits
        with policy.model.disable_adapter():
            bare = policy.model(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, bare, atol=1e-2)  # the adapter matters, or the line above shows nothing


def test_the_embedded_tokenizer_survives_the_round_trip():
    """AutoTokenizer builds Qwen2's own pre-tokenizer for this model type, whatever tokenizer.json says."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    for text in (
        "<think>12+34=46;46-5=41</think><answer>41</answer>",
        "Spell this word backward: Zürich\n 2 + 3",
        "日本 🙂",
    ):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert len(tokenizer(tag)["input_ids"]) == 1
    assert len(tokenizer("1234")["input_ids"]) == 4


def test_no_mask_of_all_pairs_is_made_for_packed_tokens(policy, micro):
    """Of 8192 tokens it would have 67 million elements."""
    largest = 0

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype == torch.bool:
                largest = max(largest, out.numel())
            return out

    with Watching():
        policy.log_probs(micro, 1.0)
    assert largest < len(micro.input_ids) ** 2


def test_a_new_policy_is_its_base_and_what_trains_is_float32():
    policy = Policy(PolicyConfig("tiny", dtype="bfloat16"), CPU)
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad(), policy.autocast():
        logits = policy.model(input_ids=ids).logits
        with policy.model.disable_adapter():
            assert torch.equal(policy.model(input_ids=ids).logits, logits)
    assert {p.dtype for p in policy.trained_parameters()} == {torch.float32}
    assert len(policy.trained_parameters()) == 4 * 7 * 2  # layers x linear layers x (A, B)


@pytest.mark.parametrize("weights", ["merged", "unmerged"])
def test_4_bit_weights_train_after_a_rollout(batch, weights):
    """With bitsandbytes' own CPU repacking a no-grad forward breaks the next training pass."""
    config, sampling = PolicyConfig("tiny", rollout_weights=weights), Sampling(num_generations=2, max_new_tokens=4)
    step = sampling.step_shape(prompts=6, prompt_tokens=64)
    plan = make_plan(config, step, "auto", "auto", Device("", "cpu", 8e9), LocalEngine())
    policy = Policy(config, CPU)
    for _ in range(2):
        rollout = generate(policy, batch, sampling, plan=plan)
        for micro in pack(rollout, torch.arange(4), 1000):
            policy.log_probs(micro, 1.0)[0].sum().backward()
    assert all(p.grad is not None for p in policy.trained_parameters())


@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_log_probs_and_gradients_do_not_depend_on_checkpointing(checkpointing, micro, policy):
    other = Policy(PolicyConfig("tiny", quantization="none", gradient_checkpointing=checkpointing), CPU)
    shake(other)
    gradients = []
    for each in (policy, other):
        each.model.zero_grad()
        each.log_probs(micro, 1.0)[0].sum().backward()
        gradients.append([p.grad.clone() for p in each.trained_parameters()])
        each.model.zero_grad()
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_packed_tokens_with_shared_prompts_equal_right_padded_rows(kernel, batch):
    """Values and gradients, against transformers' own forward of each row by itself."""
    policy = Policy(PolicyConfig("tiny", quantization="none", attn_implementation=kernel), CPU)
    shake(policy)
    rollout = generate(policy, batch, Sampling(3, 20), seed=2)
    rows = torch.tensor([0, 1, 2, 4, 7, 8, 17])
    (micro,) = pack(rollout, rows, 10_000)
    packed, entropy = policy.log_probs(micro, 0.8)
    upstream = torch.randn(len(packed), generator=torch.Generator().manual_seed(0))
    (packed * upstream).sum().backward()
    ours = [p.grad.clone() for p in policy.trained_parameters()]
    policy.zero_grad()
    for row in rows.tolist():
        prompt = batch.prompt_ids[row // 3, : batch.prompt_lengths[row // 3]]
        completion = rollout.completion_ids[row, : rollout.lengths[row]]
        logits = policy.model(input_ids=torch.cat([prompt, completion])[None]).logits[
            0, len(prompt) - 1 : -1, : policy.head.words
        ]
        log_probs = (logits / 0.8).log_softmax(-1)
        here = micro.row_of == row
        plain = log_probs.gather(1, completion[:, None]).squeeze(1)
        assert torch.allclose(packed[here], plain, atol=1e-5)
        assert torch.allclose(entropy[here], -(log_probs.exp() * log_probs).sum(-1), atol=1e-5)
        (plain * upstream[here]).sum().backward()
    theirs = [p.grad for p in policy.trained_parameters()]
    assert all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(ours, theirs, strict=True))


def test_reference_is_the_base(policy, micro):
    base = Policy(PolicyConfig("tiny", quantization="none"), CPU)
    assert torch.allclose(policy.reference_log_probs(micro, 1.0), base.log_probs(micro, 1.0)[0], atol=1e-5)
    assert not torch.allclose(policy.reference_log_probs(micro, 1.0), policy.log_probs(micro, 1.0)[0], atol=1e-2)


def test_flash_attention_is_taken_as_sdpa_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        policy = Policy(PolicyConfig("tiny", quantization="none", attn_implementation="flash_attention_2"), CPU)
    assert policy.model.config._attn_implementation == "rl_lightning_fused"
    assert "are attended over by sdpa" in caplog.text


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/dir", "Tiny", "a/b/c"])
def test_a_missing_model_is_named(name):
    with pytest.raises(UserError, match="is not a directory; give a model's directory, a hub name"):
        PolicyConfig(name)


def test_a_directory_that_holds_no_model_is_named(tmp_path):
    with pytest.raises(UserError, match="is not a model's directory: it has no config.json") as error:
        Policy(PolicyConfig(str(tmp_path)), CPU)
    assert "\n" not in str(error.value)


def test_a_model_that_is_larger_than_the_gpu_is_one_line(monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 260.00 MiB.\nGPU 0 has …")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(UserError, match="'tiny' does not fit into the GPU's free memory") as error:
        Policy(PolicyConfig("tiny"), CPU)
    assert "\n" not in str(error.value)


def test_every_end_token_of_the_model_counts(tmp_path):
    """The generation config's, which may be several, the model config's and the tokenizer's."""
    directory = tmp_path / "many_ends"
    shutil.copytree(EMBEDDED["tiny"], directory)
    for file, ends in (("generation_config.json", [5, 7]), ("config.json", 9)):
        settings = json.loads((directory / file).read_text())
        (directory / file).write_text(json.dumps(settings | {"eos_token_id": ends}))
    policy = Policy(PolicyConfig(str(directory), quantization="none"), CPU)
    assert policy.eos_token_ids.tolist() == sorted({5, 7, 9, policy.tokenizer.eos_token_id})


@pytest.mark.parametrize(
    ("settings", "context"),
    [
        ({"max_position_embeddings": 700}, 700),
        ({"sliding_window": 600, "use_sliding_window": True, "max_window_layers": 0}, 600),
        ({"sliding_window": 600, "use_sliding_window": False}, 2048),
    ],
)
def test_sequences_longer_than_the_context_are_refused(policy, monkeypatch, settings, context):
    config = Qwen2Config(**{"max_position_embeddings": 2048, "num_hidden_layers": 2} | settings)
    monkeypatch.setattr(policy.model.base_model.model, "config", config)
    policy.refuse_longer(context)
    with pytest.raises(
        UserError, match=f"{context + 1} tokens are more than the {context} that Qwen2ForCausalLM attends"
    ):
        policy.refuse_longer(context + 1)
