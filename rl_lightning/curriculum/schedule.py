"""Schedule of levels and weights over the slots of the prompt stream; slot k is a pure function of (seed, k, schedule).

The schedule is a short list of segments. A segment is never changed once it is made, and none is made at or before a slot that was
drawn already. So a slot gives the same whenever and however often it is drawn: ahead of time, in a worker, or again after a resume.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ScheduleSegment:
    """Levels and weights that hold from a slot on.

    Attributes:
        slot: the first slot.
        levels: task to its level; tasks without levels are left out.
        weights: task to its share of the prompts, relative to the others.
    """

    slot: int
    levels: dict[str, int]
    weights: dict[str, float]


class LevelSchedule:
    """The segments that are still needed, oldest first.

    Args:
        levels: task to its level at slot 0.
        weights: task to its weight at slot 0.
        rehearsal: share of a task's prompts from the levels below its own; in [0, 1).
    """

    def __init__(self, levels: Mapping[str, int], weights: Mapping[str, float], rehearsal: float) -> None:
        self.segments = [ScheduleSegment(0, dict(levels), dict(weights))]
        self._rehearsal, self._drawn = rehearsal, -1

    def draw(self, seed: int, slot: int, in_turn: bool = True) -> tuple[str, int | None]:
        """Draw the task and level of a slot; level None is the task's own config.

        Args:
            seed: seed of the stream.
            slot: not before the oldest segment.
            in_turn: whether the slot is one of the stream's. False for extra prompts, whose slots lie beyond all of the stream's:
                they get the newest levels, and are drawn when they are needed.
        """
        if in_turn:
            self._drawn = max(self._drawn, slot)
        segment = next(segment for segment in reversed(self.segments) if segment.slot <= slot)
        task = draw_task(segment.weights, seed, slot)
        top = segment.levels.get(task)
        rng = random.Random(f"{seed}:{slot}:level")
        if top and rng.random() < self._rehearsal:
            return task, rng.randrange(top)
        return task, top

    def change(self, slot: int, levels: Mapping[str, int], weights: Mapping[str, float]) -> None:
        """Let these levels and weights hold from `slot` on. Nothing is added if they hold already.

        Args:
            slot: later than any slot of the stream that was drawn.
            levels: task to its level.
            weights: task to its weight.

        Raises:
            RuntimeError: the slot was drawn already, with other levels: decisions take effect sooner than slots are drawn ahead,
                and a resumed run would see other prompts.
        """
        last = self.segments[-1]
        if (last.levels, last.weights) == (levels, weights):
            return
        if slot <= self._drawn:
            raise RuntimeError(f"slot {self._drawn} was drawn before the levels for slot {slot} were decided")
        self.segments.append(ScheduleSegment(slot, dict(levels), dict(weights)))

    def forget_before(self, slot: int) -> None:
        """Drop the segments that no slot from `slot` on needs."""
        held = [segment for segment in self.segments if segment.slot <= slot]
        self.segments = [*held[-1:], *self.segments[len(held) :]]

    def state(self) -> list[dict[str, Any]]:
        """Return what a checkpoint holds."""
        return [asdict(segment) for segment in self.segments]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Restore what `state` returned, and forget what was drawn by the schedule before."""
        self.segments, self._drawn = [ScheduleSegment(**segment) for segment in state], -1


def draw_task(weights: Mapping[str, float], seed: int, slot: int) -> str:
    """Draw the task of a slot in proportion to the weights; a pure function of its arguments."""
    return random.Random(f"{seed}:{slot}").choices(list(weights), list(weights.values()))[0]
