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

    One state is held at most. It serves a rollout that needs one of its shape and samples in the same way, unless what its steps
    read has been moved; any other rollout has it dropped before it allocates anything itself. The shape does not depend on earlier
    rollouts, so that a resumed run rounds as if it had not been interrupted.

    Args:
        launch: how steps are run.
        max_graphs: sizes of steps that are captured, at most.
        kept: the least shape of a state that outlives its rollout, where there are graphs to be kept; None: none does.
        weights: the model's tensors that can be moved or exchanged.
        what: what is sampled, for messages.
    """

    def __init__(
        self,
        launch: type[Eager | Graphs],
        max_graphs: int = MAX_GRAPHS,
        kept: StateShape | None = None,
        weights: Callable[[], Iterable[Tensor]] = tuple,
        what: str = "rollouts",
    ) -> None:
        self._launch, self._max_graphs, self._weights = launch, max_graphs, weights
        self._kept = kept if issubclass(launch, Graphs) else None
        self._held: _Held | None = None
        self._what = what

    def unkept(self, what: str) -> KeptGraphs:
        """The same for something else that is sampled, of which nothing is kept."""
        return KeptGraphs(self._launch, self._max_graphs, None, self._weights, what)

    @property
    def uses_graphs(self) -> bool:
        """Whether steps are run as CUDA graphs, as far as they can be captured."""
        return issubclass(self._launch, Graphs)

    @property
    def sync_interval(self) -> int:
        """Steps that a row may decode before its end is noticed."""
        return self._launch.sync_interval

    def prepare(
        self, decoder: Decoder, needed: StateShape, sampling: Sampling, greedy: bool, eos_token_ids: Tensor
    ) -> StateShape:
        """Drop the held state unless it serves a rollout, and set the decoder's maximum length.

        Args:
            decoder: the model.
            needed: the least shape of a state.
            sampling, greedy, eos_token_ids: see `DecodeState`.

        Returns:
            the shape of the rollout's state.
        """
        held, shape = self._held, self._shape(needed, sampling)
        same_length = decoder.set_max_length(shape.length)
        serves = (
            held is not None
            and same_length
            and held.state.decoder is decoder
            and held.state.shape == shape
            and held.state.samples_like(sampling, greedy, eos_token_ids)
            and held.addresses == self._addresses()
        )
        if not serves:
            self._held = None
        return shape

    def _shape(self, needed: StateShape, sampling: Sampling) -> StateShape:
        kept = self._kept
        if kept is None:
            return needed
        slots = kept.slots if sampling.max_rollout_rows == "auto" else min(kept.slots, sampling.max_rollout_rows)
        rows, length = max(needed.rows, kept.rows), max(needed.length, kept.length)
        return StateShape(rows, max(needed.slots, slots), length, needed.width)

    def begin(
        self, decoder: Decoder, shape: StateShape, sampling: Sampling, greedy: bool, eos_token_ids: Tensor
    ) -> tuple[DecodeState, Eager | Graphs]:
        """The state of a rollout that has been prepared, without anything of an earlier one, and what runs its steps."""
        if self._held is None:
            state = DecodeState(decoder, shape, sampling, greedy, eos_token_ids)
            steps = self._launch(state.step, shape.slots, shape.length, self._max_graphs)
            self._held = _Held(state, steps, self._addresses())
        else:
            self._held.state.clear()
        return self._held.state, self._held.steps

    @contextmanager
    def rollout(self) -> Iterator[None]:
        """Drop the state when a rollout ends, unless it is to be kept."""
        try:
            yield
        finally:
            if self._held is not None and self._held.steps.failed:
                self._launch, self._kept = Eager, None
            if self._kept is None:
                self._held = None

    def release(self) -> None:
        """Drop the held state and its graphs."""
        self._held = None

    def stop_keeping(self) -> str | None:
        """Free the memory that is held between rollouts, for good; what was done in words, None where there was nothing to free."""
        if self._held is None:
            return None
        self._held = self._kept = None
        return "CUDA graphs are captured anew in each rollout from here on; results change by rounding only"

    def give_up(self) -> str | None:
        """Use no more graphs; what was done in words, None where there were none."""
        if self._launch is Eager:
            return None
        self._held, self._launch, self._kept = None, Eager, None
        return f"{self._what} use no CUDA graphs from here on; results change by rounding only"

    def _addresses(self) -> list[int]:
        return [weight.data_ptr() for weight in self._weights()] if self._kept else []
