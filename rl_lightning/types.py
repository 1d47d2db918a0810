"""The plain data types that the packages exchange, and the error for mistakes of the user.

Shapes: B prompts per step, G completions per prompt, N = B * G rows (completions), P prompt tokens, T completion tokens. Row n
answers prompt n // G.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a second to import, and a command that has no tensors does not wait for it
    import torch
    from torch import Tensor


class UserError(Exception):
    """An error that the user can correct. The message is one line: the setting, what is wrong with it, and what is allowed."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message that has text, or else its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def require(where: str, value: object, allowed: bool, range_: str) -> None:
    """Raise an error where a setting is out of range.

    Args:
        where: the setting's name in a config.
        value: the setting's value.
        allowed: whether the value is in range.
        range_: the allowed range, phrased to follow "it must be".

    Raises:
        UserError: the value is not allowed.
    """
    if not allowed:
        raise UserError(f"{where}: {value!r} is not allowed; it must be {range_}")


@dataclass(frozen=True)
class Problem:
    """One question, with what its environment needs to verify an answer. Picklable.

    Attributes:
        question: the text that the model is asked, without a prompt template.
        expected: one right answer as text, for display and for the best constant answer; None where there is none. The
            verifier may accept other answers.
        payload: what the environment needs to verify an answer; only the environment reads it.
        difficulty: difficulty features, name to whole number; evaluations are broken down by them.
        task: the environment's name in the mixture.
        index: the problem's number in its stream.
        level: the difficulty level that it was generated at, 0 the easiest; None where it was generated with its task's own
            config.
    """

    question: str
    expected: str | None = None
    payload: Any = field(default=None, repr=False)
    difficulty: Mapping[str, int] = field(default_factory=dict)
    task: str = ""
    index: int = 0
    level: int | None = None


@dataclass(frozen=True)
class PromptBatch:
    """B tokenized prompts.

    Attributes:
        problems: the B problems.
        prompt_ids: (B, P) int64, right-padded.
        prompt_lengths: (B,) int64, tokens of each prompt.
        cursor: the stream position after this batch; a resumed run starts there.
        skipped: how many candidate problems were skipped before these were found, by reason.
    """

    problems: tuple[Problem, ...]
    prompt_ids: Tensor
    prompt_lengths: Tensor
    cursor: int
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """B, the number of prompts."""
        return len(self.problems)

    def to(self, device: torch.device | str) -> PromptBatch:
        """The same batch with its tensors on `device`; Lightning calls this."""
        return replace(self, prompt_ids=self.prompt_ids.to(device), prompt_lengths=self.prompt_lengths.to(device))

    def select(self, rows: slice) -> PromptBatch:
        """The prompts of a slice, with the same cursor."""
        return replace(
            self,
            problems=self.problems[rows],
            prompt_ids=self.prompt_ids[rows].clone(),  # a view would be sent with all that it is a view of
            prompt_lengths=self.prompt_lengths[rows].clone(),
        )

    def repeat_problems(self, group_size: int) -> list[Problem]:
        """The problem of each of the N completions.

        Args:
            group_size: G, completions per prompt.
        """
        return [problem for problem in self.problems for _ in range(group_size)]


@dataclass(frozen=True)
class Rollout:
    """N sampled completions.

    Attributes:
        prompt_ids: (B, P) int64, right-padded.
        prompt_lengths: (B,) int64.
        completion_ids: (N, T) int64, right-padded.
        mask: (N, T) bool, true up to and including the EOS token.
        sampling_logps: (N, T) float32, the log-prob of each token under the distribution that it was sampled from; 0 where
            masked; NaN at the last token of a completion that ended there because the model's logits were not finite.
        finished: (N,) bool, whether the completion ended with an EOS token; false where it was truncated at the length limit, or
            the logits were not finite.
        texts: N decoded completions, without EOS token or padding; each begins with what the prompt has already opened of the
            assistant's turn.
    """

    prompt_ids: Tensor
    prompt_lengths: Tensor
    completion_ids: Tensor
    mask: Tensor
    sampling_logps: Tensor
    finished: Tensor
    texts: tuple[str, ...]

    @property
    def group_size(self) -> int:
        """G, completions per prompt."""
        return self.completion_ids.shape[0] // self.prompt_ids.shape[0]

    @property
    def lengths(self) -> Tensor:
        """(N,) int64, tokens of each completion, the EOS token included."""
        return self.mask.sum(dim=1)

    @property
    def not_finite(self) -> Tensor:
        """(N,) bool, completions that ended because the model's logits were not finite."""
        return self.sampling_logps.isnan().any(dim=1)

    @property
    def finite_groups(self) -> Tensor:
        """(B,) bool, the groups none of whose completions is `not_finite`."""
        return ~self.not_finite.view(-1, self.group_size).any(dim=1)

    @property
    def truncated(self) -> Tensor:
        """(N,) bool, completions that were truncated at the length limit."""
        return ~(self.finished | self.not_finite)


@dataclass(frozen=True)
class Score:
    """The verifier's result for one completion, from which a reward is computed.

    Attributes:
        exact: 1.0 where the task's verifier gives the full score, else 0.0.
        partial: the verifier's own score in [0, 1].
        well_formed: whether the completion has the format that `data.answer_format` asks for, exactly.
        answer: the extracted answer, None where there is none.
        failure: why the score is 0 without a verifier's score, None where the verifier gave one. "no_answer"; "refused_<reason>",
            by `Environment.refuse`; "raised_<Error>", an exception of the verifier; "timeout"; "killed_its_process";
            "not_finite"; or "not_finite_logits", a completion that the model could not end.
        format: how much of that format it has, in [0, 1].
    """

    exact: float
    partial: float
    well_formed: bool
    answer: str | None
    failure: str | None = None
    format: float = 0.0


@dataclass(frozen=True)
class RolloutBatch:
    """B prompts, a group of G completions for each, and their scores and rewards.

    Attributes:
        prompts: B prompts.
        rollout: N = B * G completions.
        scores: N scores.
        reward_components: (B, G, R) float64, the R components of each reward, unweighted.
        rewards: (B, G) float64, their weighted sums.
        kept: (B,) bool, the groups that the step trains on. Not those in which logits were not finite; and with dynamic sampling
            no more than a step has.
    """

    prompts: PromptBatch
    rollout: Rollout
    scores: tuple[Score, ...]
    reward_components: Tensor
    rewards: Tensor
    kept: Tensor

    def __len__(self) -> int:
        """B, the number of groups."""
        return len(self.prompts)

    @property
    def accuracies(self) -> list[tuple[Problem, float]]:
        """Each group's problem, and the share of its completions that are exactly right; without groups of which one ended because
        its logits were not finite."""
        size = self.rollout.group_size
        shares = [sum(s.exact for s in self.scores[i : i + size]) / size for i in range(0, len(self.scores), size)]
        groups = zip(self.prompts.problems, shares, self.rollout.finite_groups.tolist(), strict=True)
        return [(problem, share) for problem, share, finite in groups if finite]


@dataclass(frozen=True)
class TrainerLogprobs:
    """Log-probs and entropies of the sampled tokens by the trainer's forward pass, before the first update.

    Attributes:
        logps: (N, T) float32 log-probs; NaN in rows that were not forwarded because the loss does not depend on them.
        entropies: (N, T) float32 entropies of the policy at the same tokens, in nats; NaN in the same rows.
    """

    logps: Tensor
    entropies: Tensor

    @classmethod
    def empty(cls, rollout: Rollout) -> TrainerLogprobs:
        """All NaN, to be filled at the first update."""
        logps = rollout.sampling_logps
        return cls(*(logps.new_full(logps.shape, float("nan")) for _ in range(2)))


@dataclass(frozen=True)
class StepRecord:
    """One training step, as every `StepCallback` receives it.

    Attributes:
        step: the number of optimizer steps at its end.
        rollouts: B prompts with N completions, their scores and rewards.
        advantages: (B, G) float32.
        weights: (N, T) float32, each token's weight in the loss; 0 for tokens that are not trained on.
        trainer_logprobs: log-probs and entropies by the trainer.
        seconds: wall time by part of the step (sample, score, train), of the rank that took the longest.
        supervised: whether it is one of `model.sft_steps`; its samples may have been drawn for prompts with examples.
    """

    step: int
    rollouts: RolloutBatch
    advantages: Tensor
    weights: Tensor
    trainer_logprobs: TrainerLogprobs
    seconds: Mapping[str, float]
    supervised: bool = False


@dataclass(frozen=True)
class EvalBatch:
    """Completions of evaluation problems with their scores, as `validation_step` returns them.

    Attributes:
        rollout: k completions per problem.
        scores: one score per completion.
    """

    rollout: Rollout
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class LossOutput:
    """The loss of a micro-batch, and sums for the metrics.

    Attributes:
        loss: scalar; the micro-batch losses of one step add up to the step's loss, so gradients can be accumulated.
        metrics: detached scalars that add up over micro-batches as well.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
