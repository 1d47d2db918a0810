"""Rollouts made by hand, two completions of a prompt, and an engine, a scorer and prompts that give these."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rl_lightning.types import Problem, PromptBatch, Rollout, RolloutBatch, Score

RIGHT, WRONG = Score(1.0, 1.0, True, "1"), Score(0.0, 0.0, False, None)


def prompt_batch(numbers: Sequence[int], width: int = 3) -> PromptBatch:
    """Prompts for the problems of these numbers, whose tokens are the number."""
    problems = tuple(Problem(f"{n}?", task="sums", index=n) for n in numbers)
    ids, lengths = torch.tensor(numbers)[:, None].expand(-1, width), torch.full((len(numbers),), width)
    return PromptBatch(problems, ids, lengths, cursor=max(numbers) + 1, skipped={"held_out": 1})


def completions(prompts: PromptBatch, with_variance: Sequence[bool], width: int = 3) -> Rollout:
    """Two completions of each prompt, of `width` tokens; where there is variance, the first is right."""
    count = len(prompts)
    ids = torch.tensor([p.index for p in prompts.problems]).repeat_interleave(2)[:, None].expand(-1, width)
    mask, done = torch.ones(2 * count, width, dtype=torch.bool), torch.ones(2 * count, dtype=torch.bool)
    texts = tuple(text for varies in with_variance for text in ("1" if varies else "0", "0"))
    return Rollout(prompts.prompt_ids, prompts.prompt_lengths, ids, mask, -torch.ones(2 * count, width), done, texts)


def rollout_batch(numbers: Sequence[int], with_variance: Sequence[bool], width: int = 3) -> RolloutBatch:
    """Groups of two for the problems of these numbers; a completion that is right earns 1."""
    prompts = prompt_batch(numbers, width)
    rollout = completions(prompts, with_variance, width)
    scores = tuple(RIGHT if text == "1" else WRONG for text in rollout.texts)
    components = torch.zeros(len(numbers), 2, 2, dtype=torch.float64)
    components[:, 0, 0] = torch.tensor(with_variance).double()
    return RolloutBatch(
        prompts, rollout, scores, components, components.sum(2), torch.ones(len(numbers), dtype=torch.bool)
    )


class ConstructedEngine:
    """A rollout engine of which the problem's number decides whether a group has reward variance.

    Attributes:
        draws: what decided each call's completions.
        synced: how many times it took the policy's weights.
    """

    def __init__(self, with_variance: set[int]) -> None:
        self.with_variance = with_variance
        self.draws: list[torch.Tensor | None] = []
        self.synced = 0

    def evaluator(self) -> ConstructedEngine:
        return self

    def sync_weights(self) -> None:
        self.synced += 1

    def generate(self, prompts, sampling, draws, on_finished=None) -> Rollout:
        self.draws.append(draws)
        numbers = [p.index for p in prompts.problems]
        width = 3 if numbers[0] < 100 else 5
        rollout = completions(prompts, [n in self.with_variance for n in numbers], width)
        for row, text in enumerate(rollout.texts):
            on_finished(row, text)
        return rollout


class ConstructedScorer:
    """Gives the text "1" full marks.

    Attributes:
        submitted: number and text of each completion that it was told of while others were being sampled.
    """

    def __init__(self) -> None:
        self.submitted: list[tuple[int, str]] = []

    def submit(self, problem: Problem, text: str) -> None:
        self.submitted.append((problem.index, text))

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Score]:
        return [RIGHT if text == "1" else WRONG for _, text in zip(problems, texts, strict=True)]


class ConstructedPrompts:
    """Extra prompts from number 100 on.

    Attributes:
        counts: how many were asked for, call by call.
    """

    def __init__(self) -> None:
        self.counts: list[int] = []

    def with_examples(self, prompts: PromptBatch) -> PromptBatch:
        raise NotImplementedError

    def extra_prompts(self, count: int) -> PromptBatch:
        first = 100 + sum(self.counts)
        self.counts.append(count)
        return prompt_batch(range(first, first + count))
