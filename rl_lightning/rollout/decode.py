"""The decode loop: each prompt is read once, sequences take a slot, and a slot whose sequence has ended goes to the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.rollout.cache import Prompts, SlotCache
from rl_lightning.rollout.network import Decoder
from rl_lightning.rollout.sampling import Sampling, choose
from rl_lightning.rollout.steps import Eager, Graphs
from rl_lightning.types import PromptBatch, Rollout


@torch.inference_mode()
def sample_groups(
    decoder: Decoder,
    batch: PromptBatch,
    sampling: Sampling,
    end_token_ids: Tensor,
    decode_text: Callable[[Tensor], str],
    generator: torch.Generator | Tensor | None,
    pad_token_id: int = 0,
    ended: Callable[[int, str], None] | None = None,
    launch: type[Eager | Graphs] | None = None,
    prompts_at_once: int | None = None,
) -> Rollout:
    """Sample a group of completions for every prompt.

    Args:
        decoder: the model.
        batch: B prompts on the model's device.
        sampling: how to draw.
        end_token_ids: (E,) int64, the tokens that end a completion.
        decode_text: token ids of one completion, without its end token, to text.
        generator: a CPU generator, which advances by exactly N x max_new_tokens draws; or the draws themselves, (N,
            max_new_tokens) float64 in [0, 1) on the CPU; None decodes one completion a prompt greedily (N = B).
        pad_token_id: fills rows after their end.
        ended: is given a row's number and its text while other rows are still being sampled.
        launch: how steps are run; None: as CUDA graphs on a GPU.
        prompts_at_once: the cache holds this many prompts, and reads on as slots come free; None: all B. Fewer need less
            memory, and change nothing else.

    Returns:
        the rollout; row n answers prompt n // G.
    """
    uniforms = generator if isinstance(generator, Tensor) else None
    if isinstance(generator, torch.Generator):
        shape = (len(batch.problems) * sampling.num_generations, sampling.max_new_tokens)
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float64)
    launch = launch or (Graphs if batch.prompt_ids.is_cuda else Eager)
    decoding = _Decoding(decoder, batch, sampling, end_token_ids, uniforms, launch, prompts_at_once)
    texts = [""] * decoding.rows
    for row, length in decoding.run():
        texts[row] = decode_text(decoding.tokens[row, :length].cpu())
        if ended is not None:
            ended(row, texts[row])
    with torch.inference_mode(False):
        return decoding.rollout(tuple(texts), pad_token_id)


class _Decoding:
    """One rollout under way.

    What a step reads and writes is allocated once and stays in place, so that a step can be a CUDA graph. Slots from `live` on
    are idle: should they decode at all, it is for a row beyond the last, which nobody reads.

    Attributes:
        row, token, position, prompt: (R,) int64 each slot's row of the rollout, its last token, that token's place, and the
            length of its prompt.
        logits, turned, probs: (R, V) of the token being chosen; turned is scratch.
        tokens, logps, ends: (N + 1, T + some), the same, and (N + 1,): what has been sampled; `ends` is the length, with end
            token, of a row that ended by itself, else 0.
    """

    def __init__(
        self,
        decoder: Decoder,
        batch: PromptBatch,
        sampling: Sampling,
        end_token_ids: Tensor,
        uniforms: Tensor | None,
        launch: type[Eager | Graphs],
        prompts_at_once: int | None,
    ) -> None:
        self.decoder, self.batch, self.sampling, self.end_token_ids = decoder, batch, sampling, end_token_ids
        (prompts, prompt_width), device = batch.prompt_ids.shape, batch.prompt_ids.device
        self.group = 1 if uniforms is None else sampling.num_generations
        self.rows, self.limit = prompts * self.group, sampling.max_new_tokens
        overrun = launch.look_every  # so much later a row is seen to have ended
        width = self.limit + overrun
        length = -(-(prompt_width + width) // 8) * 8  # fused attention wants its mask in whole eights
        most = sampling.max_rollout_rows
        slots = self.rows if most == "auto" else min(self.rows, most)
        decoder.room_for(length)
        self.prompts: Prompts | None = Prompts(
            decoder, batch.prompt_ids, batch.prompt_lengths, prompts_at_once or prompts
        )
        self.cache = SlotCache(decoder, slots, length)
        self.launch, self.length = launch, length
        self.uniforms = None if uniforms is None else F.pad(uniforms, (0, overrun, 0, 1)).to(device)
        self.tokens = torch.zeros(self.rows + 1, width, dtype=torch.int64, device=device)
        self.logps = torch.zeros(self.rows + 1, width, dtype=torch.float32, device=device)
        self.ends = torch.zeros(self.rows + 1, dtype=torch.int64, device=device)
        self.logits = decoder.head.new_empty(slots, len(decoder.head))
        self.turned = self.logits.new_empty(0 if self.logits.is_cuda else self.logits.numel())
        self.probs = torch.empty_like(self.logits, dtype=torch.float32)
        self.row, self.token, self.position, self.prompt = torch.zeros(4, slots, dtype=torch.int64, device=device)

    def run(self) -> Iterator[tuple[int, int]]:
        """Sample it all; yields each row as it ends, with its length without end token."""
        waiting = deque(range(self.rows))
        live = len(self.row)
        steps = self.launch(
            self._step, live, self.length
        )  # not kept: it holds this object, which must go when it is done with
        self._begin(list(range(live)), waiting)
        while live:
            span = int(self.position[:live].max()) + steps.look_every
            for _ in range(steps.look_every):
                steps.run(live, span)
            row, position, prompt = self.row[:live], self.position[:live], self.prompt[:live]
            ends = self.ends[row]
            over = (ends > 0) | (position + 1 - prompt >= self.limit)
            done = over.nonzero().squeeze(1).tolist()
            for slot in done:
                end = int(ends[slot])
                yield int(row[slot]), end - 1 if end else self.limit
            if done:
                done = self._begin(done, waiting)
                live = self._close_up(done, live, span)

    def _begin(self, slots: list[int], waiting: deque[int]) -> list[int]:
        """Give slots to waiting rows; returns the slots for which there is none."""
        begun = 0
        while begun < len(slots) and waiting and self.prompts:
            if waiting[0] // self.group >= self.prompts.end:
                self.prompts.read_on()
            count = min(len(slots) - begun, self.prompts.end * self.group - waiting[0])
            to = self._index(slots[begun : begun + count])
            row = self._index([waiting.popleft() for _ in range(count)])
            owner = row // self.group
            last = self.batch.prompt_lengths[owner] - 1
            self.cache.fill(to, self.prompts, owner)
            # The prompt's last token is the first to be decoded: what follows it is the first token of the completion.
            self.row[to], self.position[to], self.prompt[to] = row, last, last + 1
            self.token[to] = self.batch.prompt_ids[owner, last]
            begun += count
        if not waiting:
            self.prompts = None
        return slots[begun:]

    def _close_up(self, free: list[int], live: int, span: int) -> int:
        """Move the last live slots into free ones, so that the live ones come first; returns how many they are."""
        left = live - len(free)
        sources = self._index([slot for slot in range(left, live) if slot not in free])
        targets = self._index([slot for slot in free if slot < left])
        if len(targets):
            self.cache.move(sources, targets, span)
            for state in (self.row, self.token, self.position, self.prompt):
                state[targets] = state[sources]
        self.row[left:live] = self.rows
        self.position[left:live] = 0
        return left

    def _step(self, slots: int, span: int) -> None:
        """One token for each of the first slots. No value leaves the device."""
        row, token, position, prompt = (s[:slots] for s in (self.row, self.token, self.position, self.prompt))
        attend = self.cache.attention(position, span)
        hidden = self.decoder(token[:, None], position[:, None], attend)[:, 0]
        # An idle slot may count from anywhere: what it writes goes to the row that nobody reads.
        column = (position + 1 - prompt).clamp(0, self.tokens.shape[1] - 1)
        uniforms = None if self.uniforms is None else self.uniforms[row, column]
        logits = self._logits(hidden)
        chosen, logps = choose(logits, self.sampling, uniforms, self.probs[:slots])
        self.tokens[row, column], self.logps[row, column] = chosen, logps
        before = self.ends[row]
        # Not torch.isin, which sorts where there are many and then waits for the GPU: a graph must not.
        is_end = (chosen[:, None] == self.end_token_ids).any(dim=1)
        ends_now = (before == 0) & (column < self.limit) & is_end
        self.ends[row] = torch.where(ends_now, column + 1, before)
        token.copy_(chosen)
        position.add_(1)

    def _logits(self, hidden: Tensor) -> Tensor:
        """(R', H) to (R', V)."""
        head, logits = self.decoder.head, self.logits[: len(hidden)]
        if logits.is_cuda:
            return torch.mm(hidden, head.T, out=logits)
        # Few rows by many words: on a CPU the other way round is a third faster, turning it over included.
        turned = self.turned[: logits.numel()].view(len(head), len(hidden))
        return logits.copy_(torch.mm(head, hidden.T, out=turned).T)

    def rollout(self, texts: tuple[str, ...], pad_token_id: int) -> Rollout:
        """What has been sampled, without the room that was kept."""
        ends = self.ends[: self.rows]
        finished = ends > 0
        lengths = torch.where(finished, ends, self.limit)
        width = int(lengths.max())
        mask = torch.arange(width, device=ends.device) < lengths[:, None]
        return Rollout(
            self.batch.prompt_ids,
            self.batch.prompt_lengths,
            torch.where(mask, self.tokens[: self.rows, :width], pad_token_id),
            mask,
            torch.where(mask, self.logps[: self.rows, :width], 0.0),
            finished,
            texts,
        )

    def _index(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.row.device)
