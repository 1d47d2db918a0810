"""Keep every sampled completion: what the model really wrote is the best instrument there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rl_lightning.whole_files import write_whole


class RolloutLog(Callback):
    """Write `rollouts/step_N.jsonl` in the trainer's `default_root_dir`: one line a completion of the step that ended at N.

    A line holds task, index (the problem's number in the stream), question, completion, answer, tokens, finished, exact,
    partial, well_formed, failure, reward and advantage.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "rollouts" / f"step_{trainer.global_step}.jsonl"
            write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(outputs["record"])))


def _rows(record: Any) -> list[dict[str, Any]]:
    rollout = record.rollout
    columns = zip(
        rollout.texts,
        record.scores,
        rollout.lengths.tolist(),
        rollout.finished.tolist(),
        record.rewards.flatten().tolist(),
        record.advantages.flatten().tolist(),
        strict=True,
    )
    rows = []
    for n, (text, score, tokens, finished, reward, advantage) in enumerate(columns):
        problem = record.batch.problems[n // rollout.group_size]
        rows.append(
            {
                "task": problem.task,
                "index": problem.index,
                "question": problem.question,
                "completion": text,
                "answer": score.answer,
                "tokens": tokens,
                "finished": finished,
                "exact": score.exact,
                "partial": score.partial,
                "well_formed": score.well_formed,
                "failure": score.failure,
                "reward": reward,
                "advantage": advantage,
            }
        )
    return rows
