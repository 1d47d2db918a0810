"""Hold an export to the policy that was trained: the same prompts, log-probs of stored completions, accuracy on the same problems.

An export is the adapter with the full-precision base, rounded; a run whose base was held in 4 bits was trained with other weights.
So log-probs are compared with the policy on the full-precision base, from which only rounding may separate an export, and accuracy
with the policy as it was trained. A merge into the 4-bit base is near to the policy as trained; the first comparison finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rl_lightning.evaluation import Row, paired_differences
from rl_lightning.export.base_files import stored_quantised
from rl_lightning.export.loaded import Loaded
from rl_lightning.export.policy_measures import MeasuredPolicy
from rl_lightning.export.run_prompts import RunPrompts
from rl_lightning.export.source import Source
from rl_lightning.export.stored_completions import stored_completions
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.scoring import Scorer
from rl_lightning.types import Problem

COMPLETIONS = 64
"""Stored completions whose log-probs are compared."""

ROUNDING = {
    "float32": 0.001,
    "float16": 0.005,
    "bfloat16": 0.02,
    "f16": 0.005,
    "q8_0": 0.03,
    "q4_k_m": 0.1,
}
"""How far an export's log-probs may be from those of the policy on the full-precision base, nats per token on average, by the
precision of its weights; docs/export.md has what was measured, and why."""

SHARE_OF_4_BITS = 0.5
"""Where 4 bits changed more than that, it may differ by this share of it. A merge into the 4-bit base differs by all of it, what is
rounded to 16 bits by less than an eighth (docs/export.md)."""

_SECONDS = 10.0
"""Time limit of a verifier, in seconds."""


@dataclass(frozen=True)
class Distance:
    """How far two models' log-probs of the same tokens are apart.

    Attributes:
        mean: mean absolute difference, nats per token.
        largest: of any token.
    """

    mean: float
    largest: float


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        completions: stored completions compared, and their `tokens`.
        distance: the export's log-probs to those of the policy on the full-precision base.
        of_4_bits: those of the policy as trained to the same; None where the run's base was not in 4 bits.
        accuracy: by group ("all problems" and the tasks): n, policy, export, and the paired difference's mean, low, high and p.
        faults: what is wrong, a line each; empty: the export is good.
    """

    completions: int
    tokens: int
    distance: Distance
    of_4_bits: Distance | None
    accuracy: dict[str, dict[str, float]]
    faults: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Verifier:
    """Loads the policy as it was trained, then on the full-precision base, then an export, one after the other.

    Args:
        source: the checkpoint and its run.
        prompts: how the run asked.
        number: problems to compare accuracies on; None: all of the run's evaluation.

    Raises:
        UserError: the run was evaluated on other problems, or has kept no completions.
    """

    def __init__(self, source: Source, prompts: RunPrompts, number: int | None) -> None:
        prompts.refuse_others()
        self._source, self._prompts, self._problems = source, prompts, prompts.choose(number)
        self._template = prompts.template(load_tokenizer(source.policy.model_name_or_path))
        self._asked = [self._template.token_ids(each.question, each.task) for each in self._problems]
        end = self._template.tokenizer.eos_token_id
        self._completions = stored_completions(source, self._template, end, COMPLETIONS)

    def __call__(self, loads: Mapping[str, Callable[[], Loaded]]) -> dict[str, Verification]:
        """Verify the parts of an export, one after the other.

        Args:
            loads: by part, what loads it as its user does.

        Raises:
            UserError: one of the models cannot be loaded.
        """
        answers = self._source.prompt.format
        scorer = Scorer(self._prompts.mixture, workers=2, seconds=_SECONDS, answers=answers)
        try:
            policy = self._policy(self._source.policy)
            trained = policy.log_probs(self._completions)
            before = _rows(self._problems, policy.complete(self._problems), scorer)
            ends = frozenset(policy.policy.eos_token_ids.tolist())
            policy.free()
            reference, of_4_bits = trained, None
            if (config := self._in_full_precision()) is not None:
                policy = self._policy(config)
                reference = policy.log_probs(self._completions)
                policy.free()
                of_4_bits = _distance(trained, reference)
            return {
                name: self._part(load(), (before, ends), reference, of_4_bits, scorer) for name, load in loads.items()
            }
        finally:
            scorer.close()

    def _part(
        self,
        export: Loaded,
        policy: tuple[Sequence[Row], frozenset[int]],
        reference: Sequence[Tensor],
        of_4_bits: Distance | None,
        scorer: Scorer,
    ) -> Verification:
        """A part against the policy's rows and end tokens, and the log-probs on the full-precision base."""
        before, ends = policy
        after = _rows(self._problems, self._answers(export), scorer)
        found = [export.log_probs(each.prompt_ids, each.completion_ids) for each in self._completions]
        accuracy, distance = _accuracies(before, after), _distance(found, reference)
        faults = [*self._other_tokens(export, ends), *_faults(distance, of_4_bits, accuracy, export.precision)]
        tokens = sum(len(each.completion_ids) for each in self._completions)
        return Verification(len(self._completions), tokens, distance, of_4_bits, accuracy, tuple(faults))

    def _policy(self, config: PolicyConfig) -> MeasuredPolicy:
        longest = max(map(len, [*self._asked, *(each.prompt_ids for each in self._completions)]))
        return MeasuredPolicy(self._source, config, self._template, longest)

    def _in_full_precision(self) -> PolicyConfig | None:
        """The policy on the full-precision base; None where it was trained on that, or only the base in 4 bits is there."""
        base = self._source.model_directory
        if self._source.policy.quantization == "none" or stored_quantised(base) is not None:
            return None
        return replace(self._source.policy, quantization="none", model_name_or_path=str(base))

    def _answers(self, export: Loaded) -> list[str]:
        """The export's greedy completions as texts that are scored, as `Policy.decode_text` writes them."""
        found = export.complete(self._asked, self._source.sampling.max_new_tokens)
        decode, options = export.tokenizer.decode, {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return [self._template.opening + decode(ids, **options) for ids in found]

    def _other_tokens(self, export: Loaded, ends: frozenset[int]) -> list[str]:
        """Faults where the export's tokenizer and chat template give other prompts than those of the training, or a completion
        ends at other tokens."""
        template, faults = self._prompts.template(export.tokenizer), []
        pairs = zip(self._problems, self._asked, strict=True)
        other = sum(template.token_ids(each.question, each.task) != ids for each, ids in pairs)
        if other:
            faults.append(f"{other} of {len(self._asked)} prompts have other tokens than in training")
        if export.end_token_ids - export.ends_anyway != ends - export.ends_anyway:
            faults.append(f"a completion ends at tokens {sorted(export.end_token_ids)}, in training at {sorted(ends)}")
        return faults


def _faults(
    distance: Distance, of_4_bits: Distance | None, accuracy: dict[str, dict[str, float]], precision: str
) -> list[str]:
    faults, most = [], ROUNDING[precision]
    if of_4_bits is not None:
        most = max(most, SHARE_OF_4_BITS * of_4_bits.mean)
    if not distance.mean <= most:  # also where it is not a number
        faults.append(
            f"its log-probs differ by {distance.mean:.3g} nats per token from those of the policy on the full-precision base, and "
            f"rounding to {precision} gives less than {most:.3g}"
        )
    overall = next(iter(accuracy.values()))
    if overall["high"] < 0:
        faults.append(
            f"its accuracy is {overall['export']:.3f} and the policy's {overall['policy']:.3f}: the difference's 95% interval, "
            f"{overall['low']:+.3f} to {overall['high']:+.3f}, lies below 0"
        )
    return faults


def _rows(problems: Sequence[Problem], texts: Sequence[str], scorer: Scorer) -> list[Row]:
    return [
        {"task": problem.task, "index": problem.index, "exact": score.exact, "partial": score.partial}
        for problem, score in zip(problems, scorer(problems, texts), strict=True)
    ]


def _accuracies(before: Sequence[Row], after: Sequence[Row]) -> dict[str, dict[str, float]]:
    tasks = sorted({row["task"] for row in after})
    groups = {"all problems": after} | (
        {task: [row for row in after if row["task"] == task] for task in tasks} if len(tasks) > 1 else {}
    )
    old = {(row["task"], row["index"]): row for row in before}
    found = {}
    for name, rows in groups.items():
        policy = sum(old[row["task"], row["index"]]["exact"] for row in rows) / len(rows)
        export = sum(row["exact"] for row in rows) / len(rows)
        found[name] = {"n": len(rows), "policy": policy, "export": export, **paired_differences(old, rows)[0]}
    return found


def _distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Distance:
    apart = (torch.cat(list(one)) - torch.cat(list(other))).abs()
    return Distance(float(apart.mean()), float(apart.max()))
