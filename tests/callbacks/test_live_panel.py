"""What a run shows while it goes on: on a terminal, and without one."""

from __future__ import annotations

import io
import json
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from rl_lightning.callbacks import FixedEval, LivePanel, StopAtSignal, live_panel, stop_at_signal
from rl_lightning.callbacks.live_panel import PanelMetrics, clock, line, lowered, panel
from rl_lightning.memory import MemoryLimits

FIGURES = PanelMetrics(10, 60, 0.42, 0.31, 0.94, 1234.4, (5_200_000_000, 8_000_000_000), 3723.0, 0.5, 0.125)


def text(renderable, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_a_line_has_all_metrics():
    assert line(FIGURES) == (
        "step 10/60  reward 0.420  right 31%  accuracy 0.500 (+0.125)  groups with variance 94%  tokens/s 1,234  "
        "memory 5.2 of 8.0 GB  left 1:02:03"
    )
    assert "tokens/s 1,234  ranks 4 (waiting 12%)  memory" in line(replace(FIGURES, ranks=(4, 0.12)))
    supervised = line(replace(FIGURES, sft_samples=12.0))
    assert "sft samples 12" in supervised
    assert "with variance" not in supervised
    bare = replace(
        FIGURES, max_steps=None, memory=None, seconds_left=None, accuracy=None, gain=None, with_variance=None
    )
    assert line(bare) == "step 10  reward 0.420  right 31%  tokens/s 1,234"


def test_the_panel_has_them_too_and_counts_down():
    shown = text(panel(FIGURES, "outputs/run", since=3))
    wider = replace(FIGURES, reward=-10.0, tokens_per_second=123456.0, with_variance=1.0)
    for part in ("outputs/run", "step 10/60", "1:02:00", "0.420", "0.500 (+0.125)", "94%", "1,234", "5.2 of 8.0 GB"):
        assert part in shown
    assert max(map(len, text(panel(FIGURES, "outputs/run"), width=200).splitlines())) <= 78  # and "^C" in 80 columns
    assert {len(row) for row in shown.splitlines()} == {max(map(len, text(panel(wider, "outputs/run")).splitlines()))}
    assert "step 10" in text(panel(replace(FIGURES, max_steps=None, seconds_left=None), "run"))


def test_a_panel_that_stops_says_so_and_counts_nothing_down():
    shown = text(panel(FIGURES, "outputs/run", 3, live_panel._STOPPING))
    assert "stopping after this rollout and a checkpoint; Ctrl-C again stops now" in shown
    assert "1:02:0" not in shown
    assert {len(row) for row in shown.splitlines()} == {len(text(panel(FIGURES, "outputs/run")).splitlines()[0])}


def test_the_whole_of_it_is_in_a_panel_of_the_least_width():
    least = PanelMetrics(4, 60, 0.42, 0.31, None, 99.0, None, None, None, None)
    assert live_panel._STOPPING in text(panel(least, "run", 0, live_panel._STOPPING))


@pytest.mark.parametrize("terminal", [True, False])
def test_a_signal_is_answered_in_the_panel_or_else_by_a_line(play, terminal, monkeypatch):
    """On a terminal a line would be drawn over, and half a panel stay above it."""
    bar, lines = LivePanel(), []
    monkeypatch.setattr(stop_at_signal.os, "write", lambda file, line: lines.append((file, line)))
    stop = StopAtSignal()

    class Interrupting(Terminal if terminal else io.StringIO):
        """A user who presses Ctrl-C when the first evaluation is printed."""

        def write(self, written: str) -> int:
            if "accuracy 0.750 [" in written and stop.received is None:
                signal.raise_signal(signal.SIGINT)
            return super().write(written)

    trainer = SimpleNamespace(callbacks=[bar, stop], global_step=0, max_steps=9, should_stop=False)
    module = SimpleNamespace(collective=SimpleNamespace(world_size=1), interrupted=False)
    stop.on_train_start(trainer, module)
    try:
        written = play(Interrupting(), bar)
    finally:
        stop.teardown(trainer, module, "fit")
    assert module.interrupted
    assert ("Ctrl-C again stops now" in written) == terminal
    assert bool(lines) != terminal
    if terminal:
        assert on_screen(written)[-1].startswith("step 3/3")
        assert not [row for row in on_screen(written) if "─" in row or "Ctrl-C" in row]


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599.7, "1:00:00"), (61, "1:01")])
def test_the_clock(seconds, shown):
    assert clock(seconds) == shown


class Terminal(io.StringIO):
    """Keeps what is written, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Three steps with an evaluation's line after the second, 4 seconds each, written to the given standard output."""
    now = 0.0
    monkeypatch.setattr(live_panel.time, "monotonic", lambda: now)
    monkeypatch.setenv("TERM", "xterm")
    (tmp_path / "eval_results").mkdir()
    first = {"suite": "s", "step": 0, "overall": {"accuracy": 0.25}}
    (tmp_path / "eval_results" / "eval_step_0.json").write_text(json.dumps(first))

    def run(out, bar: LivePanel) -> str:
        nonlocal now
        monkeypatch.setattr("sys.stdout", out)
        evaluation = FixedEval()
        evaluation.latest = first
        metrics = {"reward/mean": 0.5, "reward/exact": 0.4, "time/sampled_tokens_per_second": 99.0}
        module = SimpleNamespace(metrics=metrics, limits=MemoryLimits.of(1000, 64))
        trainer = SimpleNamespace(
            global_step=0,
            max_steps=3,
            default_root_dir=tmp_path,
            callbacks=[evaluation],
            is_global_zero=True,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        bar.setup(trainer, module, "fit")
        bar.on_train_start(trainer, module)
        for step in (1, 2, 3):
            trainer.global_step, now = step, now + 4
            bar.on_step(trainer, module, None)
            if bar._live is not None:
                bar._live.refresh()
            if step == 2:
                evaluation.latest = {"suite": "s", "step": 2, "overall": {"accuracy": 0.75}}
                bar.print("step 2: accuracy 0.750 [on 4] held-out problems")
        bar.on_train_end(trainer, module)
        bar.teardown(trainer, module, "fit")
        return out.getvalue()

    return run


def test_without_a_terminal_there_are_plain_lines_now_and_then(play):
    lines = play(io.StringIO(), LivePanel(plain_seconds=5)).splitlines()
    assert lines == [
        "step 1/3  reward 0.500  right 40%  accuracy 0.250  tokens/s 99  left 0:08",
        "step 2: accuracy 0.750 [on 4] held-out problems",
        "step 3/3  reward 0.500  right 40%  accuracy 0.750 (+0.500)  tokens/s 99  left 0:00",
    ]


def test_a_limit_that_was_lowered_is_shown_with_what_was_planned():
    limits = MemoryLimits.of(1000, 64, 40)
    assert lowered(limits) == {}
    for limit in (limits.token_budget, limits.rollout_rows, limits.eval_rows, limits.eval_rows):
        limit.halve()
    found = replace(FIGURES, lowered=lowered(limits)).items()
    assert found["token_budget"] == "500 of 1000"
    assert found["max_rollout_rows"] == "32 of 64"
    assert found["fixed_eval.rows"] == "10 of 40"


def test_on_a_terminal_the_panel_stays_below_what_is_printed_and_is_gone_at_the_end(play):
    written = play(Terminal(), LivePanel())
    screen = on_screen(written)
    assert screen == [
        "step 2: accuracy 0.750 [on 4] held-out problems",
        "step 3/3  reward 0.500  right 40%  accuracy 0.750 (+0.500)  tokens/s 99  left 0:00",
    ]
    assert "groups with variance" not in written
    assert "step 2/3" in written
    assert written.rstrip().endswith("left 0:00")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor comes back


def on_screen(written: str) -> list[str]:
    """The lines that a terminal shows in the end: cursor up, line erased, carriage return, new line; colours are dropped."""
    import re

    rows, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", written):
        if token == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif token == "\r":
            column = 0
        elif token.startswith("\x1b["):
            if token.endswith("A"):
                row -= int(token[2:-1] or 1)
            elif token.endswith("K"):
                rows[row] = ""
        else:
            rows[row] = rows[row][:column].ljust(column) + token + rows[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in rows if line.strip()]


def test_an_exception_gives_the_terminal_back(play, monkeypatch):
    bar = LivePanel()
    monkeypatch.setattr(bar, "_collect", lambda *args: 1 / 0)
    out = Terminal()
    with pytest.raises(ZeroDivisionError):
        play(out, bar)
    bar.on_exception(None, None, ZeroDivisionError())
    assert out.getvalue().count("\x1b[?25h") == 1


@pytest.mark.parametrize(("width", "rows"), [(80, 3), (40, 3), (20, 6), (10, 12)])
def test_a_panel_that_the_terminal_has_wrapped_is_erased_whole(monkeypatch, width, rows):
    """Before the first step it has 3 lines of 31 characters."""
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("TERM", "xterm")
    bar = LivePanel()
    trainer = SimpleNamespace(global_step=0, default_root_dir="outputs/a_run_of_mine", max_steps=3, is_global_zero=True)
    bar.setup(trainer, None, "fit")
    bar.on_train_start(trainer, None)
    with bar._live._lock:  # its own thread draws too
        bar._console.width = 80
        bar._live.refresh()
        assert bar._drawn == (31, 3)
        at = len(out.getvalue())
        bar._console.width = width
        bar._live.refresh()
    erased = out.getvalue()[at:].partition("╭")[0]
    bar._stop()
    assert erased.count("\x1b[1A") == rows - 1
    assert erased.count("\x1b[2K") >= rows
