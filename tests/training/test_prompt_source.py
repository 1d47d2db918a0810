"""What a data module must have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rl_lightning.data import PromptDataModule
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.module import GRPOModule
from rl_lightning.types import UserError


def set_up(data) -> None:
    module = GRPOModule()
    module.trainer = SimpleNamespace(world_size=1, datamodule=data)
    module.setup("fit")


def test_what_a_data_module_lacks_is_named():
    with pytest.raises(
        UserError, match="SimpleNamespace is not a PromptSource .* it lacks mixture, .*, with_examples, "
    ):
        set_up(SimpleNamespace())
    data = PromptDataModule({"chain_sum": TaskSpec()}, num_workers=0)
    members = {name: getattr(data, name) for name in dir(data) if not name.startswith("_") and name != "advance"}
    with pytest.raises(UserError, match="it lacks advance; use"):
        set_up(SimpleNamespace(**members))
