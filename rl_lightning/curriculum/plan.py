"""Which level and weight each task has at each slot of the stream: slot k is a pure function of (seed, k, plan).

The plan is a short list of turns. A turn once made is never changed, and none is made at or before a slot that was drawn
already: so a slot is drawn the same whenever and however often it is drawn, ahead of time, in a worker, or again after a stop.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Turn:
    """What holds from a slot on.

    Attributes:
        slot: the first.
        levels: task to its level; tasks without a ladder are not there.
        weights: task to its share of the prompts, relative to the others.
    """

    slot: int
    levels: dict[str, int]
    weights: dict[str, float]


class Plan:
    """The turns that still matter, the oldest first.

    Args:
        levels: task to its level at slot 0.
        weights: task to its weight at slot 0.
        rehearsal: share of a task's prompts from the levels below; in [0, 1).
    """

    def __init__(self, levels: Mapping[str, int], weights: Mapping[str, float], rehearsal: float) -> None:
        self.turns = [Turn(0, dict(levels), dict(weights))]
        self._rehearsal, self._drawn = rehearsal, -1

    def draw(self, seed: int, slot: int, in_turn: bool = True) -> tuple[str, int | None]:
        """Task and level of a slot; level None is the task's own config.

        Args:
            seed: the stream's.
            slot: not before the oldest turn.
            in_turn: whether it is the stream's; one that is not has what was decided last, and is drawn when it is needed.
        """
        if in_turn:
            self._drawn = max(self._drawn, slot)
        turn = next(turn for turn in reversed(self.turns) if turn.slot <= slot)
        task = draw_task(turn.weights, seed, slot)
        top = turn.levels.get(task)
        rng = random.Random(f"{seed}:{slot}:level")
        if top and rng.random() < self._rehearsal:
            return task, rng.randrange(top)
        return task, top

    def turn(self, slot: int, levels: Mapping[str, int], weights: Mapping[str, float]) -> None:
        """From `slot` on, these hold. Nothing is written down where they hold already.

        Raises:
            RuntimeError: the slot was drawn already, by other levels: the lag of the decisions is shorter than what is drawn
                ahead, and a resumed run would see other prompts.
        """
        last = self.turns[-1]
        if (last.levels, last.weights) == (levels, weights):
            return
        if slot <= self._drawn:
            raise RuntimeError(f"slot {self._drawn} was drawn before the plan for slot {slot} was made")
        self.turns.append(Turn(slot, dict(levels), dict(weights)))

    def forget_before(self, slot: int) -> None:
        """Drop the turns that hold for no slot from `slot` on."""
        held = [turn for turn in self.turns if turn.slot <= slot]
        self.turns = [*held[-1:], *self.turns[len(held) :]]

    def state(self) -> list[dict[str, Any]]:
        """For a checkpoint."""
        return [asdict(turn) for turn in self.turns]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Put back what `state` gave; what was drawn by another plan is forgotten."""
        self.turns, self._drawn = [Turn(**turn) for turn in state], -1


def draw_task(weights: Mapping[str, float], seed: int, slot: int) -> str:
    """The task of a slot, a pure function of its arguments."""
    return random.Random(f"{seed}:{slot}").choices(list(weights), list(weights.values()))[0]
