"""Each test here runs on a CPU too, where what only a GPU has is imitated, so that it can be trusted to run on a GPU.

`pytest -m gpu` runs the GPU's part, which is skipped where there is none.
"""

from __future__ import annotations

import gc

import pytest
import torch

from rl_lightning.policy import Policy
from tests.random_models import random_model


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cpu":
        yield torch.device("cpu")
        return
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    yield torch.device("cuda", 0)
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture
def on_gpu(device) -> bool:
    return device.type == "cuda"


@pytest.fixture
def broad_model(tmp_path, on_gpu):
    """A model whose keys, values and activations fill hundreds of MB on a GPU, where the allocator rounds up to 20 MB."""
    large = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8}
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape = large | {"num_key_value_heads": 8} if on_gpu else small | {"num_key_value_heads": 4}
    return str(random_model("qwen2", tmp_path, **shape))


def allocated(policy: Policy) -> int:
    """Bytes of tensors on the policy's GPU."""
    torch.cuda.synchronize(policy.device)
    return torch.cuda.memory_allocated(policy.device)
