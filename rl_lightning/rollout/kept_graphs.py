"""Keep a decode state and the graphs of its steps from one rollout to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from rl_lightning.memory.plan import MAX_GRAPHS
from rl_lightning.rollout.decode_state import DecodeState, StateShape
from rl_lightning.rollout.network import Decoder
from rl_lightning.rollout.sampling import Sampling
from rl_lightning.rollout.steps import Eager, Graphs


@dataclass
class _Held:
    state: DecodeState
    steps: Eager | Graphs
    addresses: list[int]


class KeptGraphs:
    """Makes the decode state of each rollout, or gives it that of an earlier one with its graphs.

    One state is held at most. It grows to the longest rollout, and then serves all that sample in the same way, unless what their
    steps read has been moved. Any other rollout has it dropped before it allocates anything itself.

    Args:
        launch: how steps are run.
        max_graphs: sizes of steps that are captured, at most.
        keep: whether a state outlives its rollout, where there are graphs to be kept.
        weights: the model's tensors that can be moved or exchanged.
    """

    def __init__(
        self,
        launch: type[Eager | Graphs],
        max_graphs: int = MAX_GRAPHS,
        keep: bool = False,
        weights: Callable[[], Iterable[Tensor]] = tuple,
    ) -> None:
        self._launch, self._max_graphs, self._weights = launch, max_graphs, weights
        self._keep = keep and issubclass(launch, Graphs)
        self._held: _Held | None = None

    @property
    def sync_interval(self) -> int:
        """Steps that a row may decode before its end is noticed."""
        return self._launch.sync_interval

    def prepare(
        self, decoder: Decoder, needed: StateShape, sampling: Sampling, greedy: bool, eos_token_ids: Tensor
    ) -> None:
        """Keep the held state if it serves a rollout, else drop it; and set the decoder's maximum length."""
        held = self._held
        most = float("inf") if sampling.max_rollout_rows == "auto" else sampling.max_rollout_rows
        if held is not None and not (
            held.state.decoder is decoder
            and held.state.shape.holds(needed, most)
            and held.state.samples_like(sampling, greedy, eos_token_ids)
            and held.addresses == self._addresses()
            and decoder.set_max_length(held.state.shape.length)
        ):
            held = self._held = None
        if held is None:
            decoder.set_max_length(needed.length)

    def begin(
        self, decoder: Decoder, needed: StateShape, sampling: Sampling, greedy: bool, eos_token_ids: Tensor
    ) -> tuple[DecodeState, Eager | Graphs]:
        """The state of a rollout that has been prepared, without anything of an earlier one, and what runs its steps."""
        if self._held is None:
            state = DecodeState(decoder, needed, sampling, greedy, eos_token_ids)
            steps = self._launch(state.step, needed.slots, needed.length, self._max_graphs)
            self._held = _Held(state, steps, self._addresses())
        else:
            self._held.state.clear()
        return self._held.state, self._held.steps

    @contextmanager
    def rollout(self) -> Iterator[None]:
        """Drop the state when a rollout ends, unless it ended well and its state is to be kept."""
        ended = False
        try:
            yield
            ended = True
        finally:
            if self._held is not None and self._held.steps.failed:
                self._launch, self._keep = Eager, False
            if not (ended and self._keep):
                self._held = None

    def release(self) -> None:
        """Drop the held state and its graphs."""
        self._held = None

    def stop_keeping(self) -> str | None:
        """Free the memory that is held between rollouts, for good; what was done in words, None where there was nothing to free."""
        if self._held is None:
            return None
        self._held, self._keep = None, False
        return "CUDA graphs are captured anew in each rollout from here on"

    def give_up(self) -> str | None:
        """Use no more graphs; what was done in words, None where there were none."""
        if self._launch is Eager:
            return None
        self._held, self._launch, self._keep = None, Eager, False
        return "rollouts use no CUDA graphs from here on"

    def _addresses(self) -> list[int]:
        return [weight.data_ptr() for weight in self._weights()] if self._keep else []
