"""`export --push`: what was made goes to a stand-in for the hub; what the hub refuses is known before the work."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rl_lightning.checkpointing.atomic_files import write_json
from rl_lightning.checkpointing.model_files import read_json
from rl_lightning.cli.main import main
from rl_lightning.export.sharing import ABOUT
from tests.hub.fixtures import hub  # noqa: F401


def export(run: Path, to: Path, *words: str) -> int:
    return main(["export", str(run), "--to", str(to), "--format", "adapter", *words])


def test_what_was_made_is_pushed(run, hub, tmp_path, capsys):  # noqa: F811
    assert export(run / "best", tmp_path / "mine", "--no-verify", "--push", "me/mine") == 0
    stored = hub.repositories["me/mine"]
    assert stored.private
    assert "rl_lightning" in stored.tags()
    for path in (tmp_path / "mine").iterdir():
        if path.name != "README.md":
            assert stored.files[path.name] == path.read_bytes()
    card = stored.files["README.md"].decode()
    assert 'from_pretrained(base, "me/mine")' in card
    assert "--no-verify" in card
    assert f"pushed to {hub.url}/me/mine, private" in capsys.readouterr().out


def test_a_dry_run_makes_the_export_and_pushes_nothing(run, hub, tmp_path, capsys):  # noqa: F811
    assert export(run, tmp_path / "mine", "--no-verify", "--push", "me/mine", "--public", "--dry-run") == 0
    assert (tmp_path / "mine" / "adapter_model.safetensors").is_file()
    out = capsys.readouterr().out
    assert f"would be pushed to {hub.url}/me/mine, public:" in out
    assert "adapter_model.safetensors" in out
    assert not hub.requests


def test_what_the_hub_refuses_is_known_before_the_work(run, hub, tmp_path, capsys):  # noqa: F811
    hub.refuse["/api/"] = 401
    assert export(run, tmp_path / "mine", "--no-verify", "--push", "me/mine") == 2
    assert "does not accept the token" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_what_failed_its_verification_is_not_pushed(run, hub, tmp_path, monkeypatch):  # noqa: F811
    failed = {"": SimpleNamespace(faults=("wrong",))}
    monkeypatch.setattr("rl_lightning.cli.export.export", lambda *_: (tmp_path / "mine.failed", failed))
    monkeypatch.setattr("rl_lightning.cli.export.verification_table", lambda found: "")
    assert export(run, tmp_path / "mine", "--push", "me/mine") == 1
    assert {method for method, _ in hub.requests} == {"GET"}


def test_one_file_that_failed_is_enough(run, hub, tmp_path, capsys):  # noqa: F811
    """Of several GGUF files, each with a verification of its own."""
    assert export(run, tmp_path / "mine", "--no-verify") == 0
    about = read_json(tmp_path / "mine" / ABOUT)
    write_json(tmp_path / "mine" / ABOUT, about | {"faults": ["model-q8_0.gguf: wrong"]})
    assert main(["push", str(tmp_path / "mine"), "me/mine"]) == 2
    assert "it is not pushed: model-q8_0.gguf: wrong" in capsys.readouterr().err
    write_json(tmp_path / "mine" / ABOUT, about)
    assert main(["push", str(tmp_path / "mine"), "me/mine"]) == 0


@pytest.mark.parametrize("word", ["--public", "--dry-run"])
def test_options_of_a_push_without_one(run, tmp_path, capsys, word):
    assert export(run, tmp_path / "mine", word) == 2
    assert "--public and --dry-run need --push OWNER/NAME" in capsys.readouterr().err
