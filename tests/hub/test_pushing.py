"""A push to a stand-in for the hub: what arrives, what is refused, and how an interrupted one goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from rl_lightning.cli.main import main
from rl_lightning.hub import pushing
from rl_lightning.hub.pushing import Found, Repository, look, push
from rl_lightning.types import UserError
from tests.conftest import ROOT
from tests.hub.stand_in import TOKEN, Stored

CARD = '---\ntags:\n- rl_lightning\n---\nPeftModel.from_pretrained(base, "my-model")\n'
OURS = {"README.md": CARD.encode()}


@pytest.fixture
def export(tmp_path) -> Path:
    """An export's files, small ones."""
    directory = tmp_path / "my-model"
    (directory / "more").mkdir(parents=True)
    for name, content in {
        "README.md": CARD,
        "config.json": "{}",
        "model-00001-of-00002.safetensors": "one" * 100,
        "model-00002-of-00002.safetensors": "two" * 100,
        "more/template.jinja": "{{ x }}",
        ".cache": "not for others",
    }.items():
        (directory / name).write_text(content)
    about(directory, [])
    return directory


def about(directory: Path, faults: list[str]) -> None:
    text = json.dumps({"format": "merged", "step": 7, "faults": faults})
    (directory / "rl_lightning_export.json").write_text(text)


def error(capsys, *words: str) -> str:
    """The one line of a command that is refused."""
    assert main(list(words)) == 2
    text = capsys.readouterr().err
    assert TOKEN not in text
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]  # beside bars of progress
    assert text.endswith(f"{line}\n")
    return line


def test_every_file_arrives_in_a_private_repository_byte_for_byte(hub, export, capsys):
    assert main(["push", str(export), "me/mine"]) == 0
    stored = hub.repositories["me/mine"]
    assert stored.private
    assert stored.messages == ["merged, step 7"]
    sent = {name: content for name, content in stored.files.items() if name != ".gitattributes"}
    here = {p.relative_to(export).as_posix(): p.read_bytes() for p in export.rglob("*") if p.is_file()}
    del here[".cache"]
    here["README.md"] = here["README.md"].replace(b'"my-model"', b'"me/mine"')
    assert sent == here
    out = capsys.readouterr().out
    assert out == f"pushed to {hub.url}/me/mine, private\n"


def test_public_only_when_asked_and_the_visibility_of_what_is_there_counts(hub, export, capsys):
    assert main(["push", str(export), "me/mine", "--public"]) == 0
    assert not hub.repositories["me/mine"].private
    assert "me/mine is public on the hub, and a private one was asked for" in error(
        capsys, "push", str(export), "me/mine"
    )


def test_a_dry_run_shows_all_and_asks_the_hub_nothing(hub, export, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(export), "me/mine", "--dry-run"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"would be pushed to {hub.url}/me/mine, private:"
    assert [line.split()[1] for line in out[1:-1]] == [
        "README.md",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "more/template.jinja",
        "rl_lightning_export.json",
    ]
    assert out[3].split()[0] == "300"
    assert not hub.requests


def test_an_interrupted_push_goes_on(hub, export, capsys):
    hub.breaks_after = 1
    assert "push: me/mine:" in error(capsys, "push", str(export), "me/mine")
    assert set(hub.repositories["me/mine"].files) == {".gitattributes"}  # nobody sees half of it
    hub.breaks_after = None
    hub.requests.clear()
    assert main(["push", str(export), "me/mine"]) == 0
    assert hub.uploads() == 1
    assert len(hub.repositories["me/mine"].files) == 7


def test_the_same_again_is_a_commit_onto_it(hub, export):
    assert main(["push", str(export), "me/mine"]) == 0
    (export / "config.json").write_text('{"new": 1}')
    assert main(["push", str(export), "me/mine"]) == 0
    assert hub.repositories["me/mine"].files["config.json"] == b'{"new": 1}'
    assert hub.uploads() == 2


def test_what_is_not_verified_may_go_and_what_failed_may_not(hub, export, capsys):
    about(export, ["its log-probs differ"])
    line = error(capsys, "push", str(export), "me/mine")
    assert line.endswith("failed its verification, so it is not pushed: its log-probs differ")
    (export / "rl_lightning_export.json").unlink()
    assert "is not an export: there is no rl_lightning_export.json in it" in error(capsys, "push", str(export), "me/x")
    assert not hub.requests
    about(export, [])
    assert main(["push", str(export), "me/mine"]) == 0


def test_a_commit_that_came_between_look_and_push_is_not_built_upon(hub, export, capsys, monkeypatch):
    assert main(["push", str(export), "me/mine"]) == 0
    stored, operation = hub.repositories["me/mine"], pushing.CommitOperationAdd

    def meanwhile(*args: object) -> object:
        stored.files["adapter_config.json"] = b"{}"
        stored.messages.append("theirs")
        return operation(*args)

    monkeypatch.setattr(pushing, "CommitOperationAdd", meanwhile)
    assert "changed by somebody else meanwhile (412)" in error(capsys, "push", str(export), "me/mine")
    assert stored.messages[-1] == "theirs"


@pytest.mark.parametrize("name", ["mine", "a/b/c", "a b/c", "https://hub/a/b", "me/", ""])
def test_a_name_that_is_not_owner_and_name(hub, export, capsys, name):
    assert "it must be owner/name" in error(capsys, "push", str(export), name)
    assert not hub.requests


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/models/", 401, "does not accept the token"),
        ("/api/models/", 403, "may not write there"),
        ("/api/repos/create", 403, "may not write there"),
        ("/api/repos/create", 404, "there is no such owner"),
        ("/preupload/", 401, "does not accept the token"),
        ("/commit/", 403, "may not write there"),
        ("/commit/", 409, "changed by somebody else"),
        ("/commit/", 500, "the hub answered 500"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, export, capsys, path, status, said):
    hub.refuse[path] = status
    assert said in error(capsys, "push", str(export), "me/mine")


def test_no_token_a_wrong_one_and_a_malformed_one(hub, export, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not accept the token (401)" in error(capsys, "push", str(export), "me/mine")
    monkeypatch.setenv("HF_TOKEN", "hf_bäd")
    assert "hf_" not in error(capsys, "push", str(export), "me/mine")
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    assert "there is no token; log in by `hf auth login`" in error(capsys, "push", str(export), "me/mine")
    assert not hub.requests


def test_no_network_and_offline(hub, export, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in error(capsys, "push", str(export), "me/mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    assert "http://127.0.0.1:9 cannot be reached" in error(capsys, "push", str(export), "me/mine")


def test_other_content_is_left_as_it_is(hub, export, capsys):
    theirs = {".gitattributes": b"", "config.json": b"theirs", "README.md": b"---\ntags: [other]\n---\n"}
    hub.repositories["me/mine"] = Stored(True, dict(theirs))
    assert "holds other content (README.md, config.json)" in error(capsys, "push", str(export), "me/mine")
    assert hub.repositories["me/mine"].files == theirs


def test_an_adapter_is_not_left_beside_a_merged_model(hub, export, capsys):
    hub.repositories["me/mine"] = Stored(True, {**OURS, "adapter_config.json": b"{}", "picture.png": b""})
    assert "holds adapter_config.json, which would be loaded together" in error(capsys, "push", str(export), "me/mine")
    assert "adapter_config.json" in hub.repositories["me/mine"].files
    del hub.repositories["me/mine"].files["adapter_config.json"]
    assert main(["push", str(export), "me/mine"]) == 0


def test_a_look_changes_nothing(hub):
    assert look(Repository("me/mine")) is None
    hub.repositories["me/mine"] = Stored(True)
    assert look(Repository("me/mine")) == Found(frozenset(), "0" * 40)
    assert {method for method, _ in hub.requests} == {"GET"}


def test_a_file_that_is_gone_is_one_line(hub, tmp_path):
    with pytest.raises(UserError, match=r"push: me/mine: .*gone"):
        push(Repository("me/mine"), {"gone": tmp_path / "gone"}, "it")


def test_as_a_user_calls_it(hub, export):
    """In a process of its own, with the environment's own switches."""
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "rl_lightning", "push", str(export), "me/mine"]
    done = subprocess.run(command, env=os.environ | own, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert hub.repositories["me/mine"].private
