"""What a resumed run must keep: settings as text, by their dotted names."""

from __future__ import annotations

import pytest

from rl_lightning.checkpointing.resume import refuse_other_settings, settings
from rl_lightning.objective import GSPO, Clip, Objective
from rl_lightning.policy import PolicyConfig
from rl_lightning.scoring import WeightedReward
from rl_lightning.types import UserError


def test_another_surrogate_with_the_same_fields_is_another_run():
    trained_with, now = (settings(objective=Objective(surrogate=kind())) for kind in (Clip, GSPO))
    with pytest.raises(UserError, match=r"objective.surrogate.class_path was 'Clip' and is 'GSPO'"):
        refuse_other_settings(trained_with, now)


def test_a_surrogates_own_setting_is_part_of_the_run():
    trained_with, now = (settings(objective=Objective(surrogate=Clip(epsilon=e))) for e in (0.2, 0.3))
    with pytest.raises(UserError, match=r"objective.surrogate.epsilon was 0.2 and is 0.3"):
        refuse_other_settings(trained_with, now)


def test_settings_of_speed_and_memory_may_differ():
    trained_with, now = (settings(policy=PolicyConfig(dtype=d), reward=WeightedReward()) for d in ("float32", "auto"))
    refuse_other_settings(trained_with, now)
    assert trained_with == now
    assert "policy.dtype" not in now
    assert "policy.lora_r" in now


def test_settings_that_older_checkpoints_lack_have_their_old_behaviour():
    now = settings(reward=WeightedReward(), data={"answer_format": "tags"})
    older = {name: value for name, value in now.items() if name not in ("reward.format_grading", "data.answer_format")}
    refuse_other_settings(older, now)
    policy = settings(policy=PolicyConfig())
    first = {"policy.lora_alpha", "policy.lora_r", "policy.model_name_or_path", "policy.quantization"}
    refuse_other_settings({name: value for name, value in policy.items() if name in first}, policy)
    changed = settings(reward=WeightedReward(), data={"answer_format": "boxed"})
    with pytest.raises(UserError, match=r"data.answer_format was 'tags' and is 'boxed'; set"):
        refuse_other_settings(older, changed)


def test_a_reward_is_known_by_its_class_and_attributes():
    found = settings(reward=WeightedReward(format=0.2))
    assert found["reward.class_path"] == "'WeightedReward'"
    assert found["reward.format"] == "0.2"
