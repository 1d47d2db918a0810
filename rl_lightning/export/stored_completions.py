"""Completions that the run has sampled, as the tokens of prompt and completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.export.source import Source
from rl_lightning.report.run_files import Run
from rl_lightning.types import Rollout, UserError

_COLUMNS = ["step", "task", "prompt", "completion", "finish"]


@dataclass(frozen=True)
class Completion:
    """A question of the training with one of its completions.

    Attributes:
        question: the question's text.
        task: its task.
        prompt_ids: tokens of the prompt.
        completion_ids: tokens of the completion, with its end token if it ended.
    """

    question: str
    task: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


def stored_completions(
    source: Source, template: PromptTemplate, end_token: int | None, number: int
) -> list[Completion]:
    """Completions of the last steps up to the checkpoint, evenly spaced.

    Args:
        source: the checkpoint and its run.
        template: the run's prompts by the base's tokenizer.
        end_token: what a completion ends with.
        number: how many; fewer if the run has no more.

    Raises:
        UserError: the run has kept none.
    """
    rows = _last_rows(source, number)
    if not rows:
        raise UserError(
            f"export: {source.run} has no rollouts up to step {source.step} to verify with; --no-verify exports without the "
            "verification"
        )
    chosen = [rows[place * len(rows) // number] for place in range(number)] if len(rows) > number else rows
    return [found for row in chosen if (found := _tokens(row, template, end_token)).completion_ids]


def as_rollout(completions: Sequence[Completion], device: torch.device) -> Rollout:
    """The completions as a rollout of groups of one, for `pack`."""
    prompts, mask = _padded([each.prompt_ids for each in completions])
    answers, answer_mask = _padded([each.completion_ids for each in completions])
    return Rollout(
        prompt_ids=prompts.to(device),
        prompt_lengths=mask.sum(dim=1).to(device),
        completion_ids=answers.to(device),
        mask=answer_mask.to(device),
        sampling_logps=torch.zeros(answers.shape, device=device),
        finished=answer_mask.any(dim=1).to(device),
        texts=("",) * len(completions),
    )


def _last_rows(source: Source, number: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in reversed(Run(source.run, source.run.name).rollout_files):
        try:
            table = pq.read_table(file, columns=_COLUMNS)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file} cannot be read ({' '.join(str(error).split())})") from error
        found = [row for row in table.to_pylist() if row["step"] <= source.step]
        rows = found + rows
        if len(rows) >= number:
            break
    last = rows[-1]["step"] if rows else 0
    enough = next((step for step in range(last, -1, -1) if sum(row["step"] >= step for row in rows) >= number), 0)
    return [row for row in rows if row["step"] >= enough]


def _tokens(row: dict[str, Any], template: PromptTemplate, end_token: int | None) -> Completion:
    ids = template.tokenizer(row["completion"].removeprefix(template.opening), add_special_tokens=False)["input_ids"]
    end = [end_token] if row["finish"] == "end" and end_token is not None else []
    prompt = template.token_ids(row["prompt"], row["task"])
    return Completion(row["prompt"], row["task"], prompt, (*ids, *end))


def _padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return ids, torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
