"""The command `python -m rl_lightning serve`: the commands by which other programs serve what is in a directory."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rl_lightning.checkpointing.checkpoints import find_checkpoint
from rl_lightning.checkpointing.model_files import CONFIG_FILE, GENERATION, is_adapter, max_lora_rank, read_json
from rl_lightning.export.modelfile import MODELFILE
from rl_lightning.types import UserError

Command = tuple[str, list[str]]
"""What a command is for, and its words."""


def main(args: argparse.Namespace) -> None:
    """Print the commands.

    Args:
        args: the command line, as `cli.arguments` parses it.

    Raises:
        UserError: there is nothing to serve.
    """
    for title, command in commands(args.directory.expanduser(), args.port):
        print(f"# {title}\n{shlex.join(command)}\n")


def commands(place: Path, port: int) -> list[Command]:
    """The commands for what a place holds.

    Args:
        place: an export, a GGUF file, a checkpoint, or a run for its newest checkpoint.
        port: to serve at.

    Raises:
        UserError: there is nothing to serve.
    """
    if place.suffix == ".gguf" or any(place.glob("*.gguf")):
        return _gguf(place, port)
    if (place / CONFIG_FILE).is_file():
        return _adapter(place, port)
    if (place / "config.json").is_file():
        return _merged(place, port)
    checkpoint = find_checkpoint(place)
    return _adapter(checkpoint, port) if is_adapter(checkpoint) else _merged(checkpoint, port)


def _gguf(place: Path, port: int) -> list[Command]:
    file = place if place.suffix == ".gguf" else sorted(place.glob("*.gguf"))[0]
    if not file.is_file():
        raise UserError(f"serve: {file} is not there")
    found = [
        ("llama.cpp, with OpenAI's API", ["llama-server", "-m", str(file), "--jinja", "--port", str(port)]),
        ("llama.cpp, in the terminal", ["llama-cli", "-m", str(file), "--jinja", "-cnv"]),
        ("the same prompt as in training", ["python", "-m", "rl_lightning", "chat", "--ckpt_path", str(file)]),
    ]
    if (modelfile := file.parent / MODELFILE).is_file():
        name = file.absolute().parent.name.lower()
        found += [("Ollama", ["ollama", "create", name, "-f", str(modelfile)]), ("and then", ["ollama", "run", name])]
    return found


def _merged(directory: Path, port: int) -> list[Command]:
    place = str(directory)
    return [
        ("vLLM, with OpenAI's API", ["vllm", "serve", place, "--port", str(port)]),
        ("transformers, with OpenAI's API", ["transformers", "serve", place, "--port", str(port)]),
        ("and its chat, in another terminal", ["transformers", "chat", place, f"http://localhost:{port}/v1"]),
        ("the same prompt as in training", ["python", "-m", "rl_lightning", "chat", "--ckpt_path", place]),
    ]


def _adapter(directory: Path, port: int) -> list[Command]:
    config = read_json(directory / CONFIG_FILE)
    base, rank = str(config["base_model_name_or_path"]), int(config["r"])
    words = ["--enable-lora", "--max-lora-rank", str(max_lora_rank(rank)), "--lora-modules", f"policy={directory}"]
    template = directory / "chat_template.jinja"
    if template.is_file():
        words += ["--chat-template", str(template)]
    if (directory / GENERATION).is_file():  # the end tokens
        words += ["--generation-config", str(directory)]
    return [
        ("vLLM, with OpenAI's API; the model's name is policy", ["vllm", "serve", base, *words, "--port", str(port)])
    ]
