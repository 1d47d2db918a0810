"""The model behind the table of idle slots in docs/rollouts.md."""

from __future__ import annotations

from idle_slots import idle


def test_slots_are_idle_only_where_lengths_differ():
    assert idle(64, 64, 1.0, 100, steps=3) == (0.0, 0.0), "all have one token"
    assert idle(64, 64, 1e9, 100, steps=3)[0] == 0.0, "all run to the limit"


def test_more_completions_for_each_slot_keep_slots_full():
    once, often = (idle(completions, 16, 100, 1000, steps=20)[0] for completions in (16, 256))
    assert 0 < often < once < 1
