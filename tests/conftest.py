"""What the tests share: no network, clean worker processes, and the tiny policy loaded once."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import atexit
import multiprocessing
import multiprocessing.forkserver
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import settings

from rl_lightning.environments.batches import collate
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import PromptStream
from rl_lightning.memory import Plan
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.rollout.sampling import draw_uniforms
from rl_lightning.types import PromptBatch, Rollout

os.environ["RL_LIGHTNING_CACHE"] = tempfile.mkdtemp(prefix="rl_lightning_tests_")
atexit.register(shutil.rmtree, os.environ["RL_LIGHTNING_CACHE"], ignore_errors=True)

if os.name == "posix":
    # Workers are forked from one clean process, which imports once what the first pool of the session asks for: this.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["rl_lightning.environments.mixture"])
    multiprocessing.forkserver.ensure_running()

settings.register_profile("no_deadline", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("no_deadline")

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


@pytest.fixture(scope="session")
def datasets() -> dict[str, TaskSpec]:
    """The quickstart's tasks."""
    return {name: TaskSpec(**spec) for name, spec in yaml.safe_load(QUICKSTART.read_text())["data"]["datasets"].items()}


@pytest.fixture(scope="session")
def mixture(datasets: dict[str, TaskSpec]) -> EnvironmentMixture:
    return EnvironmentMixture(datasets)


@pytest.fixture(scope="session")
def policy() -> Policy:
    """The tiny policy in float32 without quantisation, adapters made to matter. Read only."""
    policy = Policy(PolicyConfig("tiny", quantization="none"), torch.device("cpu"))
    shake(policy)
    return policy


@pytest.fixture(scope="session")
def batch(policy: Policy, mixture: EnvironmentMixture) -> PromptBatch:
    """Six prompts of different lengths."""
    stream = PromptStream(mixture, PromptTemplate(policy.tokenizer, ""), seed=3)
    return collate([stream[k] for k in range(6)])


def shake(policy: Policy, scale: float = 0.02) -> None:
    """Give the adapters' B matrices values: they start at zero, and a test of a zero adapter shows little."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def generate(
    policy: Policy, batch: PromptBatch, sampling: Sampling, seed: int = 0, plan: Plan | None = None
) -> Rollout:
    """Completions by the policy as it is now, from an engine of its own."""
    engine = LocalEngine()
    engine.start(policy, plan)
    engine.sync_weights()
    rows, generator = len(batch) * sampling.num_generations, torch.Generator().manual_seed(seed)
    return engine.generate(batch, sampling, draw_uniforms(generator, rows, sampling.max_new_tokens))
