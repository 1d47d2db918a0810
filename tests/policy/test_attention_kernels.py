"""Which kernel attention gets on GPUs that answer as these generations do, and that it computes the same with each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rl_lightning.memory import Device, gpu_of_size, make_plan, table
from rl_lightning.policy import PolicyConfig, attention, attention_kernels
from rl_lightning.policy.attention import AttentionKind, causal_attention
from rl_lightning.rollout import LocalEngine, Sampling

GPUS = ("ampere", "turing")


def answers(monkeypatch, gpu: str) -> None:
    """PyTorch answers as on this GPU: flash attention takes 16 bits from Ampere on, shared heads, and no mask; memory-efficient
    attention takes any dtype and a mask, equal heads, and widths of whole eights."""

    def flash(params) -> bool:
        return gpu == "ampere" and params.query.dtype != torch.float32 and params.attn_mask is None

    def efficient(params) -> bool:
        return params.query.shape[1] == params.key.shape[1] and params.query.shape[3] % 8 == 0

    monkeypatch.setattr(torch.backends.cuda, "can_use_flash_attention", flash)
    monkeypatch.setattr(torch.backends.cuda, "can_use_efficient_attention", efficient)
    for room in (attention, attention_kernels):
        monkeypatch.setattr(
            room, "attention_kernel", lambda q, k, v, mask=None: attention_kernels.asked_kernel(q, k, v, mask)
        )


@pytest.mark.parametrize(
    ("gpu", "dtype", "heads", "width", "masked", "kernel"),
    [
        ("ampere", torch.bfloat16, 2, 16, False, "grouped"),
        ("ampere", torch.float16, 2, 20, False, "grouped"),
        ("ampere", torch.bfloat16, 2, 16, True, "repeated"),
        ("ampere", torch.float32, 2, 16, False, "repeated"),
        ("ampere", torch.float32, 4, 16, False, "grouped"),
        ("ampere", torch.float32, 2, 20, False, "scores"),
        ("turing", torch.float16, 2, 16, False, "repeated"),
        ("turing", torch.float16, 4, 16, True, "grouped"),
        ("turing", torch.float16, 4, 20, False, "scores"),
    ],
)
def test_the_kernel_that_a_gpu_has(gpu, dtype, heads, width, masked, kernel, monkeypatch):
    answers(monkeypatch, gpu)
    query, key = torch.zeros(1, 4, 8, width, dtype=dtype), torch.zeros(1, heads, 8, width, dtype=dtype)
    mask = torch.zeros(8, 8, dtype=dtype) if masked else None
    assert attention.attention_kernel(query, key, key, mask) == kernel
    if not masked:
        assert attention_kernels.planned_kernel(4, heads, width, dtype, torch.device("cpu")) == kernel


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kernel", ["repeated", "scores"])
def test_each_kernel_computes_the_same_and_never_falls_back(kernel, window, monkeypatch):
    torch.manual_seed(0)
    tensors = [torch.randn(2, heads, 9, 8, dtype=torch.float64) for heads in (4, 2, 2)]
    calls, plain = [], F.scaled_dot_product_attention
    results = []
    for chosen in ("grouped", kernel):
        monkeypatch.setattr(attention, "attention_kernel", lambda *args, chosen=chosen: chosen)
        if chosen == kernel:
            monkeypatch.setattr(
                F,
                "scaled_dot_product_attention",
                lambda q, k, *a, **how: calls.append((q, k, how)) or plain(q, k, *a, **how),
            )
        leaves = [each.clone().requires_grad_() for each in tensors]
        out = causal_attention(*leaves, AttentionKind(0.3, window))
        results.append([out, *torch.autograd.grad(out.sin().sum(), leaves)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)  # weights are float32
    assert len(calls) == (kernel == "repeated")
    assert all(q.shape[1] == k.shape[1] and not how["enable_gqa"] for q, k, how in calls)


def test_the_update_asks_too(policy, monkeypatch, batch):
    from rl_lightning.policy import pack
    from tests.conftest import generate

    rollout, asked = generate(policy, batch, Sampling(4, 12)), []
    (micro,) = pack(rollout, torch.arange(24), 10**6)
    expected = policy.log_probs(micro, 1.0)[0]
    answers(monkeypatch, "turing")
    ask = attention.attention_kernel
    monkeypatch.setattr(attention, "attention_kernel", lambda *args: asked.append(ask(*args)) or asked[-1])
    torch.testing.assert_close(policy.log_probs(micro, 1.0)[0], expected)
    assert set(asked) == {"repeated"}


def planned(device: Device, dtype: str):
    config = PolicyConfig("Qwen/Qwen2.5-0.5B-Instruct", dtype=dtype)
    return make_plan(config, Sampling(8, 512).step_shape(8, 512), "auto", "auto", device, LocalEngine())


def test_the_plan_counts_the_kernel_that_is_chosen(monkeypatch):
    there = replace(gpu_of_size(8), there=torch.device("cpu"))
    answers(monkeypatch, "turing")
    turing = planned(there, "float16")
    answers(monkeypatch, "ampere")
    ampere = planned(there, "float16")
    assert (turing.model.shape.repeats_keys, ampere.model.shape.repeats_keys) == (True, False)
    assert turing.model.shape.fused_attention
    same = replace(turing.settings, graphs=0, keep_graphs=False), ampere.step
    assert same[0].token_budget <= ampere.settings.token_budget
    assert "keys and values repeated for every query head" in table(turing)
    assert "repeated" not in table(ampere)
    # A GPU that is not there is taken for one since Ampere, which has no flash attention in float32 either.
    assert not planned(gpu_of_size(8), "bfloat16").model.shape.repeats_keys
    assert planned(gpu_of_size(8), "float32").model.shape.repeats_keys
