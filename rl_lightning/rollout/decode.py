"""The decode loop: slots decode together, and a slot whose row has ended takes the next waiting row.

Each prompt is prefilled once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rl_lightning.rollout.cache import PromptCache
from rl_lightning.rollout.decode_state import StateShape, whole_eights
from rl_lightning.rollout.kept_graphs import KeptGraphs
from rl_lightning.rollout.network import Decoder
from rl_lightning.rollout.sampling import Sampling
from rl_lightning.rollout.steps import launch_of
from rl_lightning.types import PromptBatch, Rollout


@torch.inference_mode()
def sample_groups(
    decoder: Decoder,
    batch: PromptBatch,
    sampling: Sampling,
    eos_token_ids: Tensor,
    decode_text: Callable[[Tensor], str],
    draws: Tensor | None,
    pad_token_id: int = 0,
    on_finished: Callable[[int, str], None] | None = None,
    graphs: KeptGraphs | None = None,
    prompts_at_once: int | None = None,
) -> Rollout:
    """Sample a group of completions for every prompt.

    Args:
        decoder: the model.
        batch: B prompts on the model's device.
        sampling: the sampling settings.
        eos_token_ids: (E,) int64, the tokens that end a completion.
        decode_text: from the token ids of one completion, without its EOS token, to its text.
        draws: (N, max_new_tokens) float64 in [0, 1) on the CPU, the uniform numbers that decide each row's tokens; None decodes
            one completion per prompt greedily (N = B).
        pad_token_id: fills rows after their end.
        on_finished: called with a row's number and its text while other rows are still being sampled.
        graphs: how steps are run, and what may be kept of this rollout for the next; None: as CUDA graphs on a single GPU, else as
            ordinary calls, and nothing is kept.
        prompts_at_once: number of prompts whose keys and values are held at once; the next ones are prefilled as slots become
            free. None: all B. Fewer need less memory and change the result by rounding only.

    Returns:
        the rollout; row n answers prompt n // G.
    """
    graphs = graphs or KeptGraphs(launch_of(decoder.devices, decoder.uncapturable))
    with graphs.rollout():
        decoding = _Decoding(decoder, batch, sampling, eos_token_ids, draws, graphs, prompts_at_once)
        texts = [""] * decoding.rows
        for row, length in decoding.run():
            texts[row] = decode_text(decoding.state.tokens[row, :length].cpu())
            if on_finished is not None:
                on_finished(row, texts[row])
        with torch.inference_mode(False):
            return decoding.rollout(tuple(texts), pad_token_id)


class _Decoding:
    """One rollout in progress."""

    def __init__(
        self,
        decoder: Decoder,
        batch: PromptBatch,
        sampling: Sampling,
        eos_token_ids: Tensor,
        draws: Tensor | None,
        graphs: KeptGraphs,
        prompts_at_once: int | None,
    ) -> None:
        (prompts, prompt_width), max_rows = batch.prompt_ids.shape, sampling.max_rollout_rows
        self.batch, self.group = batch, 1 if draws is None else sampling.num_generations
        self.rows, self.limit = prompts * self.group, sampling.max_new_tokens
        self.slots = self.rows if max_rows == "auto" else min(self.rows, max_rows)
        width = self.limit + graphs.sync_interval  # a row may decode for so long before its end is noticed
        length = whole_eights(prompt_width + width)
        needed, how = StateShape(self.rows, self.slots, length, width), (sampling, draws is None, eos_token_ids)
        shape = graphs.prepare(decoder, needed, *how)
        self.prompts: PromptCache | None = PromptCache(
            decoder, batch.prompt_ids, batch.prompt_lengths, prompts_at_once or prompts
        )
        self.state, self.steps = graphs.begin(decoder, shape, *how)
        self.state.set_uniforms(draws)

    def run(self) -> Iterator[tuple[int, int]]:
        """Sample all rows; yields each row as it ends, with its length without EOS token."""
        waiting, active = deque(range(self.rows)), self.slots
        state, steps = self.state, self.steps
        self._admit(list(range(active)), waiting)
        while active:
            span = int(state.position[:active].max()) + steps.sync_interval
            for _ in range(steps.sync_interval):
                steps.run(active, span)
            row, position, prompt = state.row[:active], state.position[:active], state.prompt[:active]
            ends = state.ends[row]
            finished = (ends > 0) | (position + 1 - prompt >= self.limit)
            free = finished.nonzero().squeeze(1).tolist()
            for slot in free:
                end = int(ends[slot])
                yield int(row[slot]), end - 1 if end else self.limit
            if free:
                free = self._admit(free, waiting)
                active = self._compact(free, active, span)

    def _admit(self, slots: list[int], waiting: deque[int]) -> list[int]:
        """Give free slots to waiting rows; returns the slots that stay free."""
        admitted, state = 0, self.state
        while admitted < len(slots) and waiting and self.prompts:
            if waiting[0] // self.group >= self.prompts.end:
                self.prompts.prefill_next()
            count = min(len(slots) - admitted, self.prompts.end * self.group - waiting[0])
            targets = self._index(slots[admitted : admitted + count])
            row = self._index([waiting.popleft() for _ in range(count)])
            prompt_index = row // self.group
            last = self.batch.prompt_lengths[prompt_index] - 1
            state.renew(targets)
            state.cache.fill(targets, self.prompts, prompt_index)
            # The prompt's last token is the first one to be decoded; it predicts the first token of the completion.
            state.row[targets], state.position[targets], state.prompt[targets] = row, last, last + 1
            state.token[targets] = self.batch.prompt_ids[prompt_index, last]
            admitted += count
        if not waiting:
            self.prompts = None
        return slots[admitted:]

    def _compact(self, free: list[int], active: int, span: int) -> int:
        """Move the last active slots into free ones, so that active slots come first; returns the number of active slots."""
        remaining, state = active - len(free), self.state
        sources = self._index([slot for slot in range(remaining, active) if slot not in free])
        targets = self._index([slot for slot in free if slot < remaining])
        if len(targets):
            state.cache.move(sources, targets, span)
            for each in (state.row, state.token, state.position, state.prompt):
                each[targets] = each[sources]
        state.row[remaining:active] = state.shape.rows
        state.position[remaining:active] = 0
        return remaining

    def rollout(self, texts: tuple[str, ...], pad_token_id: int) -> Rollout:
        """The finished rollout, as wide as its longest row."""
        ends = self.state.ends[: self.rows]
        lengths = torch.where(ends > 0, ends, self.limit)
        width = int(lengths.max())
        mask = torch.arange(width, device=ends.device) < lengths[:, None]
        logps = torch.where(mask, self.state.logps[: self.rows, :width], 0.0)
        return Rollout(
            self.batch.prompt_ids,
            self.batch.prompt_lengths,
            torch.where(mask & ~logps.isnan(), self.state.tokens[: self.rows, :width], pad_token_id),
            mask,
            logps,
            (ends > 0) & ~logps.isnan().any(dim=1),
            texts,
        )

    def _index(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.state.row.device)
