"""A key/value cache that is allocated once a rollout.

transformers' own grows by torch.cat, which copies the whole cache at every token: four fifths of the decode time of the tiny
policy on a CPU.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class GroupCache(Cache):
    """Filled by one prefill of the prompts, then handed to the rows of their groups with room for what they will write."""

    layers: list[GroupLayer]  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GroupLayer)

    def give_to(self, owner: Tensor, room: int) -> None:
        """Copy prompt `owner[r]`'s entries to row r and make room for `room` more tokens.

        Args:
            owner: (R,) int64.
            room: tokens.
        """
        for layer in self.layers:
            layer.give_to(owner, room)

    def keep(self, rows: Tensor) -> None:
        """Leave only these rows, (K,) int64 and rising, in place."""
        for layer in self.layers:
            layer.keep(rows)


class GroupLayer(DynamicLayer):
    """One layer; `keys` and `values`, (rows, heads, tokens, width), are views into the buffers."""

    keys: Tensor
    values: Tensor
    _buffers: tuple[Tensor, Tensor] | None = None

    def give_to(self, owner: Tensor, room: int) -> None:
        _, heads, length, width = self.keys.shape
        shape = (len(owner), heads, length + room, width)
        self._buffers = self.keys.new_empty(shape), self.values.new_empty(shape)
        for buffer, prompt in zip(self._buffers, (self.keys, self.values), strict=True):
            buffer[:, :, :length] = prompt[owner]
        self._view(len(owner), length)

    def keep(self, rows: Tensor) -> None:
        assert self._buffers is not None
        length = self.keys.shape[2]
        for buffer in self._buffers:
            buffer[: len(rows), :, :length] = buffer[rows, :, :length]
        self._view(len(rows), length)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self._buffers is None:  # the prefill
            return super().update(key_states, value_states, *args, **kwargs)
        rows, _, length, _ = self.keys.shape
        self._view(rows, length + key_states.shape[2])
        self.keys[:, :, length:] = key_states
        self.values[:, :, length:] = value_states
        return self.keys, self.values

    def _view(self, rows: int, length: int) -> None:
        assert self._buffers is not None
        self.keys, self.values = (buffer[:rows, :, :length] for buffer in self._buffers)
