"""Ask an export, as its users load it, with the prompts of its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonargparse
from transformers import AutoModelForCausalLM

from rl_lightning.checkpointing.model_files import read_json
from rl_lightning.cli.single_prompt import Settings, read_settings, settings_of
from rl_lightning.export.formats import compute_device, load_parts
from rl_lightning.export.llama_cpp import LlamaCpp, need_packages
from rl_lightning.export.loaded import Loaded, PlainModel
from rl_lightning.export.sharing import ABOUT
from rl_lightning.types import Problem, UserError, first_line


def is_export(path: Path) -> bool:
    """Whether a path is a merged export, a GGUF file or a directory with such files, and not a checkpoint or a run."""
    if path.suffix == ".gguf" or any(path.glob("*.gguf")):
        return True
    return (path / "config.json").is_file() and not (path / "trainer.ckpt").is_file()


class ExportedPolicy:
    """An export that answers greedily.

    Args:
        path: a merged export, a GGUF file, or a directory of those, of which it takes the first by name.
        config: the settings of its training; None for what the export itself says.
        max_new_tokens: length limit; None for the training's.

    Raises:
        UserError: it cannot be loaded, or nothing says how it was asked.
    """

    def __init__(self, path: Path, config: Path | None, max_new_tokens: int | None) -> None:
        file = path if path.suffix == ".gguf" else next(iter(sorted(path.glob("*.gguf"))), None)
        directory = path if file is None else file.parent
        about = read_json(directory / ABOUT) if (directory / ABOUT).is_file() else None
        self.settings = _settings(directory, config, about)
        if max_new_tokens is not None:
            self.settings.sampling.max_new_tokens = max_new_tokens
            self.settings.sampling.__post_init__()
        self._model: Loaded = _loaded(directory, file)
        self.template = self.settings.prompt.template(self._model.tokenizer)
        examples = about["prompt"]["examples"] if about else {}
        self.template.show({task: [(turn[0], turn[1]) for turn in turns] for task, turns in examples.items()})

    def answer(self, problem: Problem) -> tuple[str, int, str]:
        """The completion's text, its tokens with the end token, and `truncated` where it did not end by itself."""
        most, model = self.settings.sampling.max_new_tokens, self._model
        (ids,) = model.complete([self.template.token_ids(problem.question, problem.task)], most)
        text = model.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        finished = len(ids) < most
        return self.template.opening + text, len(ids) + finished, "" if finished else "truncated"


def _settings(directory: Path, config: Path | None, about: dict[str, Any] | None) -> Settings:
    if config is not None:
        return read_settings(config, "chat")
    if about is None:
        raise UserError(f"chat: {directory} has no {ABOUT}, which says how it was asked; name the settings by --config")
    try:
        return settings_of({"sampling": {"max_new_tokens": about["max_new_tokens"]}}, about["prompt"]["settings"])
    except (KeyError, TypeError, jsonargparse.ArgumentError) as error:
        raise UserError(f"chat: {directory / ABOUT}: {first_line(error)}; name the settings by --config") from error


def _loaded(directory: Path, file: Path | None) -> Loaded:
    if file is not None:
        need_packages()
        if not file.is_file():
            raise UserError(f"chat: {file} is not there")
        return LlamaCpp(file, "")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(directory)
        return PlainModel(model.to(compute_device()), *load_parts(directory))
    except (OSError, ValueError) as error:
        raise UserError(f"chat: {directory} cannot be loaded: {first_line(error)}") from error
