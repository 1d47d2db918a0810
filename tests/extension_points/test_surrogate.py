"""A loss of one's own: a surrogate in a line."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
import yaml

from rl_lightning.cli.main import main
from rl_lightning.objective import Clip, LossInputs, Objective, Surrogate, SurrogateTerms
from tests.extension_points.training import adapters, data, fit, module


@dataclass
class Reinforce(Surrogate):
    """advantage x log-prob, without a ratio."""

    scale: float = 1.0
    """Of it all."""

    def __call__(self, inputs: LossInputs) -> SurrogateTerms:
        return SurrogateTerms.unclipped(self.scale * inputs.advantages * inputs.logps)


def trained(root, surrogate) -> list[torch.Tensor]:
    mine = module(objective=Objective(surrogate=surrogate))
    (record,) = fit(root, mine, data())
    assert record.advantages.any()
    return adapters(mine)


def test_a_step_is_trained_with_it(tmp_path):
    """At the first update of a rollout its gradient is the clip's, and with another scale Adam's step is still the same."""
    mine, clip = trained(tmp_path, Reinforce()), trained(tmp_path, Clip())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(mine, clip, strict=True))
    opposite = trained(tmp_path, Reinforce(scale=-1.0))
    assert not all(torch.allclose(a, b, atol=1e-4) for a, b in zip(mine, opposite, strict=True))


def test_a_config_names_it_by_its_path(tmp_path):
    config = {
        "trainer": {"accelerator": "cpu", "max_steps": 1, "default_root_dir": str(tmp_path / "run")},
        "model": {
            "sampling": {"num_generations": 2, "max_new_tokens": 4},
            "objective": {"surrogate": {"class_path": f"{__name__}.Reinforce", "init_args": {"scale": 0.5}}},
        },
        "data": {"datasets": {"gcd": {}}, "prompts_per_step": 1, "num_workers": 0, "eval_num_samples": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["model"]["objective"]["surrogate"]["init_args"] == {"scale": 0.5}


def test_a_surrogate_may_train_completions_without_advantage():
    class Always(Reinforce):
        trains_zero_advantage = True

    rollout, weights = SimpleNamespace(), torch.ones(4, 3)
    rows = {
        kind: module(objective=Objective(surrogate=kind())).trainable_rows(rollout, torch.zeros(2, 2), weights).tolist()
        for kind in (Reinforce, Always)
    }
    assert rows == {Reinforce: [], Always: [0, 1, 2, 3]}
