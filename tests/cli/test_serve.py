"""serve prints the commands for what a directory holds; those at hand are parsed by the programs' own parsers."""

from __future__ import annotations

import json
import shlex

import pytest

from rl_lightning.cli.main import main


def printed(capsys, *words: str) -> list[list[str]]:
    assert main(["serve", *words]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line and not line.startswith("# ")]


@pytest.fixture
def merged(tmp_path):
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model" / "config.json").write_text("{}")
    return tmp_path / "my model"


def test_a_merged_model(merged, capsys):
    vllm, serve, chat, own = printed(capsys, str(merged), "--port", "8001")
    assert vllm == ["vllm", "serve", str(merged), "--port", "8001"]
    assert serve[:3] == ["transformers", "serve", str(merged)]
    assert chat == ["transformers", "chat", str(merged), "http://localhost:8001/v1"]
    assert own[3:] == ["chat", "--ckpt_path", str(merged)]


def test_transformers_understands_its_commands(merged, capsys):
    """Parsed by its own parser, and not run."""
    from transformers.cli.transformers import app

    _, serve, chat, _ = printed(capsys, str(merged), "--port", "8001")
    parsed = [app.commands[words[1]].make_context(words[1], words[2:]).params for words in (serve, chat)]
    assert (parsed[0]["force_model"], parsed[0]["port"]) == (str(merged), 8001)
    assert (parsed[1]["model_id"], parsed[1]["base_url"]) == (str(merged), "http://localhost:8001/v1")


def test_an_adapter_is_served_with_its_rank_template_and_end_tokens(tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base", "r": 12}))
    (vllm,) = printed(capsys, str(tmp_path))
    assert vllm[:3] == ["vllm", "serve", "someone/base"]
    assert vllm[vllm.index("--max-lora-rank") + 1] == "16"
    assert vllm[vllm.index("--lora-modules") + 1] == f"policy={tmp_path}"
    assert "--chat-template" not in vllm
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "generation_config.json").write_text("{}")
    (vllm,) = printed(capsys, str(tmp_path))
    assert vllm[vllm.index("--chat-template") + 1] == str(tmp_path / "chat_template.jinja")
    assert vllm[vllm.index("--generation-config") + 1] == str(tmp_path)


def test_gguf_files_and_a_modelfile(tmp_path, capsys):
    (tmp_path / "model-q8_0.gguf").touch()
    server, terminal, own = printed(capsys, str(tmp_path))
    assert server[:3] == ["llama-server", "-m", str(tmp_path / "model-q8_0.gguf")]
    assert terminal[0] == "llama-cli"
    assert own[-1] == str(tmp_path / "model-q8_0.gguf")
    (tmp_path / "Modelfile").touch()
    *_, create, run = printed(capsys, str(tmp_path / "model-q8_0.gguf"))
    assert create == ["ollama", "create", tmp_path.name.lower(), "-f", str(tmp_path / "Modelfile")]
    assert run == ["ollama", "run", tmp_path.name.lower()]


def test_nothing_to_serve_is_one_line(tmp_path, capsys):
    for words in (str(tmp_path), str(tmp_path / "gone.gguf")):
        assert main(["serve", words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
