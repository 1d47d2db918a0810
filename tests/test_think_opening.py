"""A chat template that opens the think section in the prompt: all that read a completion see the whole assistant's turn."""

from __future__ import annotations

import io
import shutil

import pytest
import yaml

from rl_lightning.cli.main import main
from rl_lightning.data import PromptDataModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.policy.config import EMBEDDED
from tests.extension_points.training import data, fit, module


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """The tiny policy, whose prompts now end in <think>."""
    directory = tmp_path_factory.mktemp("opens") / "model"
    shutil.copytree(EMBEDDED["tiny"], directory)
    file = directory / "chat_template.jinja"
    file.write_text(file.read_text().replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}"))
    return str(directory)


def test_completions_are_scored_and_logged_with_what_the_prompt_has_opened(model, tmp_path):
    trained = module(policy=PolicyConfig(model, quantization="none"))
    (record,) = fit(tmp_path, trained, data(), max_steps=1)
    rollout = record.rollouts.rollout
    assert all(text.startswith("<think>") and text.count("<think>") == 1 for text in rollout.texts)
    assert any(score.well_formed for score in record.rollouts.scores)
    ids = rollout.completion_ids[0][rollout.mask[0]]
    assert trained.policy.tokenizer.convert_tokens_to_ids("<think>") not in ids  # the policy did not sample it


def test_chat_shows_the_same(model, tmp_path, capsys, monkeypatch):
    config = tmp_path / "config.yaml"
    settings = {
        "model": {"policy": {"model_name_or_path": model, "quantization": "none"}},
        "data": {"system_prompt": ""},
    }
    config.write_text(yaml.safe_dump(settings))
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 3 + 4 - 2?\n"))
    assert main(["chat", "--config", str(config), "--max_new_tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith("text    <think>")


def test_a_resumed_run_must_share_the_templates_variables(datasets):
    without, with_ = (PromptDataModule(datasets, num_workers=0, chat_template_kwargs=k) for k in ({}, {"a": 1}))
    assert with_.settings()["chat_template_kwargs"] == {"a": 1}
    assert without.settings() != with_.settings()
