"""A progress bar with the four figures that one watches."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from rl_lightning.callbacks.fixed_eval import FixedEval

_SHOWN = {
    "reward": "reward/mean",
    "exact": "reward/exact",
    "dead": "groups/diverse",
    "tok/s": "time/sampled_tokens_per_second",
}


class RewardProgressBar(TQDMProgressBar):
    """Shows reward, share of exact answers, share of dead groups, sampled tokens a second, and the last evaluation."""

    def get_metrics(self, trainer: Trainer, pl_module: Any) -> dict[str, Any]:
        metrics = pl_module.metrics
        shown = {short: float(metrics[name]) for short, name in _SHOWN.items() if name in metrics}
        if "dead" in shown:
            shown["dead"] = 1 - shown["dead"]
        latest = next((c.latest for c in trainer.callbacks if isinstance(c, FixedEval)), None)  # type: ignore[attr-defined]
        if latest is not None:
            shown["eval"] = latest["overall"]["accuracy"]
        return {name: f"{value:.0f}" if name == "tok/s" else f"{value:.2f}" for name, value in shown.items()}
