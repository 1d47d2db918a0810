"""A run at a glance: one panel that stays in its place on a terminal, a line now and then where there is none."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table

from rl_lightning.callbacks.fixed_eval import FixedEval
from rl_lightning.types import require


@dataclass(frozen=True)
class Figures:
    """What is shown; None where there is none.

    Attributes:
        step: optimizer steps made.
        max_steps: of the run.
        reward: mean of the step's samples.
        right: share of exact answers among them.
        live: share of groups with something to teach.
        tokens_per_second: sampled.
        memory: bytes in use on the card and bytes that it has.
        seconds_left: at the mean speed so far.
        accuracy: of the last evaluation.
        gain: accuracy since step 0.
    """

    step: int
    max_steps: int | None
    reward: float
    right: float
    live: float | None
    tokens_per_second: float
    memory: tuple[int, int] | None
    seconds_left: float | None
    accuracy: float | None
    gain: float | None

    def items(self) -> dict[str, str]:
        """Name to text, in the order of showing, but for the step."""
        shown = {"reward": f"{self.reward:.3f}", "right": f"{self.right:.0%}"}
        if self.accuracy is not None:
            shown["accuracy"] = f"{self.accuracy:.3f}" + ("" if self.gain is None else f" ({self.gain:+.3f})")
        if self.live is not None:
            shown["live groups"] = f"{self.live:.0%}"
        shown["tokens/s"] = f"{self.tokens_per_second:,.0f}"
        if self.memory is not None:
            shown["memory"] = f"{self.memory[0] / 1e9:.1f} of {self.memory[1] / 1e9:.1f} GB"
        if self.seconds_left is not None:
            shown["left"] = clock(self.seconds_left)
        return shown

    def steps(self) -> str:
        """The step, and of how many."""
        return f"step {self.step}" + (f"/{self.max_steps}" if self.max_steps else "")


class LivePanel(ProgressBar):
    """During `fit` show step, reward, share of right samples, held-out accuracy with its change since step 0, live groups, tokens a
    second, the card's memory and the time left. What others print through `print` appears above the panel. Put it after
    GroupVariance, whose figure it shows.

    Args:
        plain_seconds: where standard output is no terminal, a line at most this often; 0 for one a step.
    """

    def __init__(self, plain_seconds: float = 10.0) -> None:
        super().__init__()
        require("LivePanel.plain_seconds", plain_seconds, plain_seconds >= 0, "0 or more")
        self.plain_seconds = plain_seconds
        self._live: Live | None = None
        self._enabled = True
        self._figures: Figures | None = None
        self._first_accuracy: dict[str | None, float | None] = {}  # by suite

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """A line above the panel, as it is."""
        if not self._enabled:
            return
        if self._live is not None:
            self._live.console.out(*args, highlight=False, **kwargs)
        else:
            print(*args, **kwargs, flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._began = self._computed = time.monotonic()
        self._first_step, self._next_line = trainer.global_step, 0.0
        self._first_accuracy = {}
        console = Console(file=sys.stdout)
        if self._enabled and console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(get_renderable=self._panel, console=console, refresh_per_second=2, transient=True)
            self._live.start(refresh=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = self._computed = time.monotonic()
        self._figures = figures = self._collect(trainer, pl_module.metrics, now)
        if self._live is None and self._enabled and (now >= self._next_line or figures.step == trainer.max_steps):
            self.print(line(figures))
            self._next_line = now + self.plain_seconds

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._live is not None and self._figures is not None:
            last = line(self._figures)
            self._stop()
            self.print(last)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _panel(self) -> RenderableType:
        """Drawn twice a second by a thread of rich's."""
        root = str(self.trainer.default_root_dir)
        if self._figures is None:
            return Panel(f"before the first step, {clock(time.monotonic() - self._began)}", title=root, expand=False)
        return panel(self._figures, root, time.monotonic() - self._computed)

    def _collect(self, trainer: Trainer, metrics: dict[str, float], now: float) -> Figures:
        step, left = trainer.global_step, None
        most = trainer.max_steps if trainer.max_steps > 0 else None
        if most is not None:
            left = (now - self._began) / (step - self._first_step) * (most - step)
        accuracy, gain = self._accuracy(trainer)
        device, memory = trainer.strategy.root_device, None
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            memory = total - free, total
        return Figures(
            step,
            most,
            metrics["reward/mean"],
            metrics["reward/exact"],
            metrics.get("groups/diverse"),
            metrics["time/sampled_tokens_per_second"],
            memory,
            left,
            accuracy,
            gain,
        )

    def _accuracy(self, trainer: Trainer) -> tuple[float | None, float | None]:
        """Of the newest evaluation, and its difference to step 0, where that was on the same problems."""
        latest = next((c.latest for c in trainer.callbacks if isinstance(c, FixedEval)), None)  # type: ignore[attr-defined]
        if latest is None:
            return None, None
        accuracy = latest["overall"]["accuracy"]
        if not self._first_accuracy:
            first = Path(trainer.default_root_dir) / "eval_results" / "eval_step_0.json"
            found = json.loads(first.read_text(encoding="utf-8")) if first.is_file() else {"suite": None, "overall": {}}
            self._first_accuracy = {found["suite"]: found["overall"].get("accuracy")}
        before = self._first_accuracy.get(latest["suite"])
        return accuracy, None if before is None or latest["step"] == 0 else accuracy - before


def panel(figures: Figures, title: str, since: float = 0.0) -> Panel:
    """The picture.

    Args:
        figures: what to show.
        title: the run.
        since: seconds since the figures were true; the time left is shorter by them.
    """
    items = figures.items()
    if figures.seconds_left is not None:
        items["left"] = clock(max(figures.seconds_left - since, 0))
    body = Table.grid(padding=(0, 3, 0, 0))
    for width in (16, 24, 24):  # so that the frame stays as wide when a figure gets shorter
        body.add_column(min_width=width)
    if figures.max_steps:
        bar = Bar(figures.max_steps, figures.step, width=24)
        body.add_row(figures.steps(), bar, items.pop("left"))
    else:
        body.add_row(figures.steps())
    texts = [f"{name} [bold]{text}[/]" for name, text in items.items()]
    for at in range(0, len(texts), 3):
        body.add_row(*texts[at : at + 3])
    return Panel(body, title=title, title_align="left", expand=False)


def line(figures: Figures) -> str:
    """The same in one line."""
    return "  ".join([figures.steps(), *(f"{name} {text}" for name, text in figures.items().items())])


def clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
