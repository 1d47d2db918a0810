"""Show progress: a panel that is updated in place on a terminal, or else a line at intervals."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.control import Control
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar as Bar
from rich.segment import ControlType, Segment
from rich.table import Table

from rl_lightning.callbacks.fixed_eval import latest_evaluation
from rl_lightning.memory import MemoryLimits
from rl_lightning.training import StepCallback
from rl_lightning.types import StepRecord, require

_STOPPING = "stopping after this rollout and a checkpoint; Ctrl-C again stops now"


@dataclass(frozen=True)
class PanelMetrics:
    """What the panel shows; None for what is not measured.

    Attributes:
        step: optimizer steps done.
        max_steps: optimizer steps of the run; None for no limit.
        reward: mean reward of the newest rollout's completions.
        right: share of exact answers among them.
        with_variance: share of groups with reward variance.
        tokens_per_second: completion tokens sampled in it, by all ranks together.
        memory: bytes in use on the GPU, and its total bytes.
        seconds_left: estimate from the mean speed so far.
        accuracy: held-out accuracy at the last evaluation.
        gain: that accuracy minus the one at step 0.
        ranks: number of ranks, and the share of its time that they waited for each other on average; None for one.
        lowered: the limits that are below what was planned, because memory ran out: name to the value now and as planned.
        sft_samples: in steps of `model.sft_steps`, completions that it trained on.
    """

    step: int
    max_steps: int | None
    reward: float
    right: float
    with_variance: float | None
    tokens_per_second: float
    memory: tuple[int, int] | None
    seconds_left: float | None
    accuracy: float | None
    gain: float | None
    sft_samples: float | None = None
    lowered: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    ranks: tuple[int, float] | None = None

    def items(self) -> dict[str, str]:
        """Return label to text, in the order in which they are shown, without the step."""
        shown = {"reward": f"{self.reward:.3f}", "right": f"{self.right:.0%}"}
        if self.accuracy is not None:
            shown["accuracy"] = f"{self.accuracy:.3f}" + ("" if self.gain is None else f" ({self.gain:+.3f})")
        if self.sft_samples is not None:
            shown["sft samples"] = f"{self.sft_samples:.0f}"
        elif self.with_variance is not None:
            shown["groups with variance"] = f"{self.with_variance:.0%}"
        shown["tokens/s"] = f"{self.tokens_per_second:,.0f}"
        if self.ranks is not None:
            shown["ranks"] = f"{self.ranks[0]} (waiting {self.ranks[1]:.0%})"
        shown |= {name: f"{now} of {planned}" for name, (now, planned) in self.lowered.items()}
        if self.memory is not None:
            shown["memory"] = f"{self.memory[0] / 1e9:.1f} of {self.memory[1] / 1e9:.1f} GB"
        if self.seconds_left is not None:
            shown["left"] = clock(self.seconds_left)
        return shown

    def steps(self) -> str:
        """Return the step and the total number of steps as text."""
        return f"step {self.step}" + (f"/{self.max_steps}" if self.max_steps else "")


class LivePanel(ProgressBar, StepCallback):
    """During `fit` show step, reward, share of right samples, held-out accuracy and its change since step 0, share of groups with
    reward variance (if GroupVariance measures it), tokens per second, the GPU's memory and the time left. What other callbacks
    print through `print` appears above the panel.

    Args:
        plain_seconds: if standard output is not a terminal, seconds between lines at least; 0 for a line after every rollout,
            which has `model.objective.num_iterations` optimizer steps.
    """

    def __init__(self, plain_seconds: float = 10.0) -> None:
        super().__init__()
        require("LivePanel.plain_seconds", plain_seconds, plain_seconds >= 0, "0 or more")
        self.plain_seconds = plain_seconds
        self._live: Live | None = None
        self._enabled, self._stopping = True, False
        self._shown: PanelMetrics | None = None
        self._first_accuracy: dict[str | None, float | None] = {}  # by suite

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line above the panel, unformatted."""
        if not self._enabled:
            return
        if self._live is not None:
            self._live.console.out(*args, highlight=False, **kwargs)
        else:
            print(*args, **kwargs, flush=True)

    def show_stopping(self) -> bool:
        """Say in the panel, from its next refresh on, that the run stops after this rollout; may be called by a signal handler.

        Returns:
            whether there is a panel.
        """
        self._stopping = True
        return self._live is not None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._began = self._computed = time.monotonic()
        self._first_step, self._next_line = trainer.global_step, 0.0
        self._first_accuracy, self._stopping = {}, False
        console = Console(file=sys.stdout)
        if self._enabled and console.is_terminal and not console.is_dumb_terminal:
            self._console, self._drawn = console, (0, 0)
            self._live = Live(get_renderable=self._panel, console=console, refresh_per_second=2, transient=True)
            self._live.start(refresh=True)

    def on_step(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        """Show the rollout's last step; an evaluation that it makes due is made, printed and shown after it."""
        now = self._computed = time.monotonic()
        self._shown = metrics = self._collect(trainer, pl_module, now)
        if self._live is None and self._enabled and (now >= self._next_line or metrics.step == trainer.max_steps):
            self.print(line(metrics))
            self._next_line = now + self.plain_seconds

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._live is not None and self._shown is not None:
            last = line(self._shown)
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
        """Return what to draw; called twice a second by rich's thread."""
        self._erase_wrapped()
        drawn = self._to_draw()
        lines = self._console.render_lines(drawn, pad=False)
        self._drawn = max(map(Segment.get_line_length, lines)), len(lines)
        return drawn

    def _erase_wrapped(self) -> None:
        """Erase what rich does not know of: a terminal that has become narrower than the panel has wrapped its lines."""
        width, height = self._drawn
        rows = height * (math.ceil(width / self._console.width) - 1)
        if rows > 0:
            erase, up = (ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)
            self._console.control(Control(*[erase, up] * rows))

    def _to_draw(self) -> RenderableType:
        root = str(self.trainer.default_root_dir)
        subtitle = _STOPPING if self._stopping else None
        if self._shown is None:
            waited = f"before the first step, {clock(time.monotonic() - self._began)}"
            return Panel(waited, title=root, subtitle=subtitle, expand=False, width=None if subtitle is None else 76)
        return panel(self._shown, root, time.monotonic() - self._computed, subtitle)

    def _collect(self, trainer: Trainer, pl_module: Any, now: float) -> PanelMetrics:
        metrics: dict[str, float] = pl_module.metrics
        step, left = trainer.global_step, None
        most = trainer.max_steps if trainer.max_steps > 0 else None
        if most is not None:
            left = (now - self._began) / (step - self._first_step) * (most - step)
        accuracy, gain = self._accuracy(trainer)
        device, memory = trainer.strategy.root_device, None
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            memory = total - free, total
        return PanelMetrics(
            step,
            most,
            metrics["reward/mean"],
            metrics["reward/exact"],
            metrics.get("groups/with_variance"),
            metrics["time/sampled_tokens_per_second"],
            memory,
            left,
            accuracy,
            gain,
            metrics.get("sft/samples"),
            lowered(pl_module.limits),
            (round(metrics["time/ranks"]), metrics["time/ranks_waiting"]) if "time/ranks" in metrics else None,
        )

    def _accuracy(self, trainer: Trainer) -> tuple[float | None, float | None]:
        """Return the newest evaluation's accuracy, and its difference to step 0 if that was on the same problems."""
        latest = latest_evaluation(trainer)
        if latest is None:
            return None, None
        accuracy = latest["overall"]["accuracy"]
        if not self._first_accuracy:
            first = Path(trainer.default_root_dir) / "eval_results" / "eval_step_0.json"
            found = json.loads(first.read_text(encoding="utf-8")) if first.is_file() else {"suite": None, "overall": {}}
            self._first_accuracy = {found["suite"]: found["overall"].get("accuracy")}
        before = self._first_accuracy.get(latest["suite"])
        return accuracy, None if before is None or latest["step"] == 0 else accuracy - before


def panel(metrics: PanelMetrics, title: str, since: float = 0.0, stopping: str | None = None) -> Panel:
    """Draw the panel.

    Args:
        metrics: what to show.
        title: the run.
        since: seconds since `metrics` were computed; they are subtracted from the time left.
        stopping: what to say at the bottom of a run that stops after this rollout, which has no time left to show.
    """
    items = metrics.items()
    if stopping is not None:
        items["left"] = ""
    elif metrics.seconds_left is not None:
        items["left"] = clock(max(metrics.seconds_left - since, 0))
    body = Table.grid(padding=(0, 2, 0, 0))
    # The frame keeps its width when a text gets shorter, and leaves room for "^C" in 80 columns, which a terminal prints after it.
    for width in (25, 18, 23):
        body.add_column(min_width=width)
    if metrics.max_steps:
        bar = Bar(metrics.max_steps, metrics.step, width=18)
        body.add_row(metrics.steps(), bar, items.pop("left"))
    else:
        items.pop("left", None)
        body.add_row(metrics.steps())
    texts = [f"{name} [bold]{text}[/]" for name, text in items.items()]
    for at in range(0, len(texts), 3):
        body.add_row(*texts[at : at + 3])
    return Panel(body, title=title, title_align="left", subtitle=stopping, subtitle_align="left", expand=False)


def line(metrics: PanelMetrics) -> str:
    """Format the same as one line."""
    return "  ".join([metrics.steps(), *(f"{name} {text}" for name, text in metrics.items().items())])


def lowered(limits: MemoryLimits) -> dict[str, tuple[int, int]]:
    """Return the limits that are below what was planned, by the last part of their setting's name."""
    some = (limits.token_budget, limits.rollout_rows, limits.eval_rows)
    return {
        limit.setting.removeprefix("model.").removeprefix("sampling."): (limit.value, limit.most)
        for limit in some
        if limit.halvings
    }


def clock(seconds: float) -> str:
    """Format seconds as 1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
