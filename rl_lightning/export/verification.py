"""Hold an export to the policy that was trained: the same prompts, log-probs of stored completions, accuracy on the same problems.

An export is the adapter with the full-precision base, rounded; a run whose base was held in 4 bits was trained with other weights.
So log-probs are compared with the policy on the full-precision base, from which only rounding may separate an export, and accuracy
with the policy as it was trained. A merge into the 4-bit base is near to the policy as trained; the first comparison finds it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
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
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.scoring import Scorer
from rl_lightning.types import Problem

COMPLETIONS = 64
"""Stored completions whose log-probs are compared."""

ROUNDING = {torch.float32: 0.001, torch.float16: 0.005, torch.bfloat16: 0.02}
"""How far an export's log-probs may be from those of the policy on the full-precision base, nats per token on average, by the dtype
that it computes in; docs/export.md has what was measured."""

SHARE_OF_4_BITS = 0.5
"""Where 4 bits changed more than that, it may differ by this share of it. A merge into the 4-bit base differs by all of it, what is
rounded to 16 bits by a quarter (docs/export.md)."""

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


def verify(
    source: Source, prompts: RunPrompts, problems: Sequence[Problem], load: Callable[[], Loaded]
) -> Verification:
    """Load the policy as it was trained, then on the full-precision base, then the export, one after the other.

    Args:
        source: the checkpoint and its run.
        prompts: how the run asked.
        problems: to compare accuracies on.
        load: loads the export as its user does.

    Raises:
        UserError: one of them cannot be loaded, or the run has kept no completions.
    """
    template = prompts.template(load_tokenizer(source.policy.model_name_or_path))
    asked = [template.token_ids(each.question, each.task) for each in problems]
    end = template.tokenizer.eos_token_id
    completions = stored_completions(source, template, end, COMPLETIONS)
    longest = max(map(len, [*asked, *(each.prompt_ids for each in completions)]))
    scorer = Scorer(prompts.mixture, workers=2, seconds=_SECONDS, answers=source.prompt.format)
    try:
        policy = MeasuredPolicy(source, source.policy, template, longest)
        trained, before = policy.log_probs(completions), _rows(problems, policy.complete(problems), scorer)
        ends = frozenset(policy.policy.eos_token_ids.tolist())
        policy.free()
        reference, of_4_bits = trained, None
        if source.policy.quantization != "none" and not stored_quantised(source.model_directory):
            config = replace(source.policy, quantization="none", model_name_or_path=str(source.model_directory))
            policy = MeasuredPolicy(source, config, template, longest)
            reference = policy.log_probs(completions)
            policy.free()
            of_4_bits = _distance(trained, reference)
        export = load()
        faults = _other_prompts(source, prompts, export, problems, asked)
        if export.end_token_ids != ends:
            faults.append(
                f"a completion ends at tokens {sorted(export.end_token_ids)}, and in training at {sorted(ends)}"
            )
        found = [export.log_probs(each.prompt_ids, each.completion_ids) for each in completions]
        texts = [
            template.opening
            + export.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for ids in export.complete(asked, source.sampling.max_new_tokens)
        ]
        after = _rows(problems, texts, scorer)
    finally:
        scorer.close()
    dtype = export.dtype
    del export
    gc.collect()
    accuracy, distance = _accuracies(before, after), _distance(found, reference)
    faults += _faults(distance, of_4_bits, accuracy, dtype)
    tokens = sum(len(each.completion_ids) for each in completions)
    return Verification(len(completions), tokens, distance, of_4_bits, accuracy, tuple(faults))


def _faults(
    distance: Distance, of_4_bits: Distance | None, accuracy: dict[str, dict[str, float]], dtype: torch.dtype
) -> list[str]:
    faults, most = [], ROUNDING[dtype]
    if of_4_bits is not None:
        most = max(most, SHARE_OF_4_BITS * of_4_bits.mean)
    if not distance.mean <= most:  # also where it is not a number
        faults.append(
            f"its log-probs differ by {distance.mean:.3g} nats per token from those of the policy on the full-precision base, and "
            f"rounding to {str(dtype).removeprefix('torch.')} gives less than {most:.3g}"
        )
    overall = next(iter(accuracy.values()))
    if overall["high"] < 0:
        faults.append(
            f"its accuracy is {overall['export']:.3f} and the policy's {overall['policy']:.3f}: the difference's 95% interval, "
            f"{overall['low']:+.3f} to {overall['high']:+.3f}, lies below 0"
        )
    return faults


def _other_prompts(
    source: Source, prompts: RunPrompts, export: Loaded, problems: Sequence[Problem], asked: Sequence[tuple[int, ...]]
) -> list[str]:
    """A fault where the export's tokenizer and chat template give other prompts than those of the training."""
    template = prompts.template(export.tokenizer)
    other = sum(
        template.token_ids(problem.question, problem.task) != ids for problem, ids in zip(problems, asked, strict=True)
    )
    return [f"{other} of {len(problems)} prompts have other tokens than in training"] if other else []


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
