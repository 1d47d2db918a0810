"""docs/quickstart.ipynb runs from its first cell to its last, and an interrupted kernel stops as Ctrl-C does."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time

import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
executed = [
    pytest.mark.usefixtures("_paths"),
    pytest.mark.notebook,
    pytest.mark.skipif(not importlib.util.find_spec("nbclient"), reason="needs the extra [notebook]"),
]
SECONDS = 600


@pytest.fixture
def _paths(monkeypatch):
    """The kernel imports this checkout, wherever it runs."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))


@pytest.fixture
def notebook() -> dict:
    return json.loads(NOTEBOOK.read_text())


def test_its_outputs_name_no_machine_and_are_small(notebook):
    text = NOTEBOOK.read_text()
    assert not re.findall(r"/(?:tmp|home|root|Users|work)/", text)
    assert "Traceback" not in text
    assert len(text) < 200_000
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))  # run once, from first to last


def test_its_links_lead_somewhere(notebook):
    text = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert targets
    assert all((NOTEBOOK.parent / target).is_file() for target in targets)


class TestExecuted:
    pytestmark = executed

    def test_every_cell_runs(self, tmp_path):
        """As written, but for fewer steps. The exit status of each command is what its cell shows."""
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(NOTEBOOK, 4)
        for cell in notebook.cells:
            cell.source = re.sub(r"max_steps=\d+", "max_steps=14", cell.source).replace("problems 40", "problems 8")
        NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}}).execute()
        statuses = [shown(cell) for cell in notebook.cells if cell.source.startswith("main(")]
        assert statuses == ["0"] * 4
        assert (tmp_path / "outputs" / "long_sums" / "checkpoint-14" / "adapter_model.safetensors").is_file()
        (progress,) = [printed(cell) for cell in notebook.cells if "plain_seconds=5" in cell.source][:1]
        assert "step 14/14" in progress  # a line at intervals, and no terminal's panel
        assert "\x1b[" not in progress

    def test_interrupting_the_kernel_saves_a_checkpoint_and_the_kernel_lives(self, tmp_path):
        from jupyter_client.manager import start_new_kernel

        manager, client = start_new_kernel(startup_timeout=SECONDS, cwd=str(tmp_path))
        try:
            words = ["fit", "--config=quickstart", "--trainer.max_steps=100000", "--trainer.default_root_dir=run"]
            words += ["--data.eval_num_samples=1", "--progress_bar.plain_seconds=0"]
            client.execute(f"from rl_lightning.cli.main import main\nstatus = main({words})")
            wait_for(client, "step 2/100000")
            manager.interrupt_kernel()
            wait_for(client, "stopped; to resume: python -m rl_lightning fit --config=quickstart")
            reply = client.execute_interactive("print('status', status)", timeout=SECONDS, output_hook=lambda _: None)
            assert reply["content"]["status"] == "ok"
            assert list((tmp_path / "run").glob("checkpoint-*/trainer.ckpt"))
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def wait_for(client, text: str) -> None:
    """Read what the kernel prints until the text is in it."""
    said, until = "", time.monotonic() + SECONDS
    while text not in said:
        message = client.get_iopub_msg(timeout=max(until - time.monotonic(), 0.1))
        assert message["msg_type"] != "error", message["content"]
        said += message["content"].get("text", "")


def shown(cell) -> str:
    """The value that a cell shows."""
    return next(out.data["text/plain"] for out in cell.outputs if out.output_type == "execute_result")


def printed(cell) -> str:
    return "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == "stdout")
