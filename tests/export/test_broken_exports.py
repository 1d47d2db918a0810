"""What cannot be exported gets one line, and nothing is left half-written."""

from __future__ import annotations

import errno
import json
import shutil

import pytest

from rl_lightning.cli.main import main
from rl_lightning.export import exporting, merging
from rl_lightning.export.adapter_format import Adapter
from rl_lightning.export.verification import Distance, _faults
from rl_lightning.report.model_card import UNKNOWN, license_of
from tests.export.exported_run import write_base
from tests.random_models import random_model


def refused(run, to, capsys, *words) -> str:
    """The line of an export that is refused; nothing is left beside its place."""
    before = sorted(to.parent.iterdir()) if to.parent.exists() else None
    assert main(["export", str(run), "--to", str(to), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (sorted(to.parent.iterdir()) if to.parent.exists() else None) == before
    return line


@pytest.fixture
def copy(run, tmp_path):
    """The run, to be damaged."""
    return shutil.copytree(run, tmp_path / "runs" / "sums")


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_existing_directory_stays_as_it_is(run, tmp_path, capsys, form):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    assert "exists already, and is left as it is" in refused(run, tmp_path / "model", capsys, "--format", form)
    assert (tmp_path / "model" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("beside", [".model.tmp", "model"])
def test_another_exports_directory_and_a_link_to_nowhere_stay(run, tmp_path, capsys, beside):
    if beside == "model":
        (tmp_path / beside).symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / beside).mkdir()
        (tmp_path / beside / "half.safetensors").write_text("being written")
    line = refused(run, tmp_path / "model", capsys, "--format", "adapter")  # which compares what is there
    assert "exists already" in line or ".model.tmp is of an export that still runs" in line


def test_what_cannot_be_loaded_again_is_one_line(run, tmp_path, capsys, monkeypatch):
    def load(*_: object) -> None:
        raise RuntimeError("unknown architecture\nmore of it")

    monkeypatch.setattr(Adapter, "load", load)
    line = refused(run, tmp_path / "model", capsys, "--format", "adapter")
    assert "cannot be loaded to verify it: RuntimeError: unknown architecture; --no-verify" in line
    assert not list(tmp_path.glob("*model*"))


def test_no_base_at_hand(copy, base, tmp_path, capsys):
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace(str(base), f"{base}_moved"))
    assert "base_moved' is not a directory" in refused(copy, tmp_path / "model", capsys, "--format", "merged")
    (unfinished := tmp_path / "runs" / "unfinished").mkdir()
    (unfinished / "config.json").write_text("{}")
    line = refused(copy, tmp_path / "model", capsys, "--format", "merged", "--base", str(unfinished))
    assert "model.safetensors is missing" in line


def test_a_hub_name_without_the_hub(copy, tmp_path, capsys):
    line = refused(copy, tmp_path / "model", capsys, "--format", "merged", "--base", "nobody/nothing")
    assert "the base 'nobody/nothing' is not at hand" in line
    assert "--base" in line


def test_another_base(run, tmp_path, capsys):
    other = random_model("llama", tmp_path / "bases")
    line = refused(run, tmp_path / "model", capsys, "--format", "merged", "--base", str(other), "--no-verify")
    assert "does not fit the base" in line
    assert "and the adapter is for" in line


def test_a_base_that_is_stored_in_4_bits(run, base, tmp_path, capsys):
    stored = shutil.copytree(base, tmp_path / "bases" / "stored")
    config = json.loads((stored / "config.json").read_text())
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (stored / "config.json").write_text(json.dumps(config | {"quantization_config": quantised}))
    line = refused(run, tmp_path / "model", capsys, "--format", "merged", "--base", str(stored))
    assert "is stored quantised by bitsandbytes; name the original" in line


def test_a_disk_that_is_full_half_way(run, tmp_path, capsys, monkeypatch):
    """After the first of several shards."""
    write, written = merging.write_tensors, []

    def full(file, *others):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(file)
        write(file, *others)

    monkeypatch.setattr(merging, "write_tensors", full)
    line = refused(run, tmp_path / "new" / "too" / "model", capsys, "--format", "merged")
    assert line.endswith("model cannot be written: No space left on device")
    assert written
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_too_small_is_found_before(run, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(exporting.shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    assert "has 0.0 GB free" in refused(run, tmp_path / "model", capsys, "--format", "merged")


def test_a_run_without_rollouts_can_only_go_unverified(copy, tmp_path, capsys):
    shutil.rmtree(copy / "rollouts")
    line = refused(copy, tmp_path / "model", capsys, "--format", "adapter")
    assert "has no rollouts up to step 2 to verify with; --no-verify" in line
    assert main(["export", str(copy), "--to", str(tmp_path / "model"), "--format", "adapter", "--no-verify"]) == 0
    assert "**Not verified**" in (tmp_path / "model" / "README.md").read_text()


def test_other_problems_than_the_run_s(copy, tmp_path, capsys):
    suite = copy / "eval_results" / "suite.json"
    found = json.loads(suite.read_text())
    found["problems"][0]["question"] = "another?"
    suite.write_text(json.dumps(found))
    assert "has other evaluation problems" in refused(copy, tmp_path / "model", capsys, "--format", "adapter")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--format", "gguuf"], "'gguuf' is not allowed; it must be adapter, merged or gguf; did you mean gguf?"),
        (["--format", "adapter", "--dtype", "bfloat16"], "--dtype has no effect on an adapter"),
        (["--format", "merged", "--verify-problems", "0"], "must be at least 1"),
        (["--format", "merged", "--verify-problems", "9", "--no-verify"], "not allowed with"),
        ([], "--format"),
    ],
)
def test_a_mistyped_command(run, tmp_path, capsys, words, part):
    assert part in refused(run, tmp_path / "model", capsys, *words)


def test_no_such_checkpoint(tmp_path, capsys):
    line = refused(tmp_path / "nowhere", tmp_path / "model", capsys, "--format", "merged")
    assert "nowhere' is not a checkpoint directory" in line


@pytest.mark.parametrize(
    ("mean", "of_4_bits", "low", "high", "good"),
    [
        (0.001, 0.05, -0.1, 0.1, True),
        (0.024, 0.05, -0.1, 0.1, True),  # below half of what 4 bits change
        (0.026, 0.05, -0.1, 0.1, False),
        (0.019, None, -0.1, 0.1, True),
        (0.021, None, -0.1, 0.1, False),
        (0.010, 0.00001, -0.1, 0.1, True),  # a base that 4 bits do not change
        (float("nan"), None, -0.1, 0.1, False),
        (0.001, None, -0.1, -0.01, False),  # worse than chance
        (0.001, None, 0.01, 0.1, True),
    ],
)
def test_what_a_verification_calls_good(mean, of_4_bits, low, high, good):
    accuracy = {"all problems": {"policy": 0.5, "export": 0.5 + (low + high) / 2, "low": low, "high": high}}
    before = None if of_4_bits is None else Distance(of_4_bits, 1.0)
    assert (_faults(Distance(mean, 1.0), before, accuracy, "bfloat16") == []) == good


def test_the_base_s_license_is_read_or_named_unknown(tmp_path):
    base = write_base(tmp_path / "base", noise=0)
    assert license_of("base", base) == UNKNOWN
    (base / "README.md").write_text("---\nlicense: [odd\n---\n# not YAML")
    assert license_of("base", base) == UNKNOWN
    (base / "LICENSE").write_text("\n   Apache License\n  Version 2.0, January 2004")
    assert license_of("base", base) == "apache-2.0"
    (base / "README.md").write_text("---\nlicense: llama3.2\n---\n")
    assert license_of("base", base) == "llama3.2"
