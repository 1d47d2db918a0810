"""What a finished run says last, and what it does not say while a model is loaded."""

from __future__ import annotations

import shlex
import subprocess
import sys

from rl_lightning.cli.main import main
from tests.conftest import ROOT


def test_a_finished_run_says_where_it_is_and_three_commands_that_work(tmp_path, capsys):
    root = tmp_path / "a run"
    words = ["--config", "quickstart", "--trainer.max_steps=1", "--data.eval_num_samples=2", "--data.num_workers=0"]
    assert main(["fit", *words, f"--trainer.default_root_dir={root}", "--trainer.enable_progress_bar=false"]) == 0
    *_, where, report, chat, compare = capsys.readouterr().out.splitlines()
    assert where == f"the run is in {shlex.quote(str(root))}; next:"
    for line, verb in ((report, "report"), (compare, "compare")):
        words = shlex.split(line)
        command = words[words.index("rl_lightning") + 1 :]
        assert command[0] == verb
        command = command[: command.index(str(root)) + 1 + (verb == "compare")]
        assert main([*command, *(["--out", str(tmp_path / "out")] if verb == "compare" else [])]) == 0
    assert "chat --ckpt_path " in chat


def test_a_model_is_loaded_without_bars_and_offers():
    """In a process of its own, because offers come at imports."""
    code = "import torch; from rl_lightning.policy import Policy, PolicyConfig; Policy(PolicyConfig('tiny'), torch.device('cpu'))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    said = ran.stdout + ran.stderr
    assert "Loading weights" not in said
    assert "kernels-community" not in said
