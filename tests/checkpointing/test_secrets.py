"""Settings that look like a secret are in no page, model card or checkpoint."""

from __future__ import annotations

import pytest
import yaml

from rl_lightning.checkpointing.resume import refuse_other_settings, settings
from rl_lightning.checkpointing.secrets import secret_names, without_secrets
from rl_lightning.report.model_card import CardOf, model_card
from rl_lightning.report.page import page
from rl_lightning.report.run_files import Run
from rl_lightning.types import UserError


def test_a_card_leaves_secrets_out():
    settings = {
        "reward": {"init_args": {"api_key": "sk-1", "hf_token": "x", "token_budget": "auto"}},
        "tasks": [{"password": "p"}],
    }
    assert without_secrets(settings) == {
        "reward": {"init_args": {"api_key": "(left out)", "hf_token": "(left out)", "token_budget": "auto"}},
        "tasks": [{"password": "(left out)"}],
    }


def test_names_that_look_like_a_secret():
    secret = {
        "apiKey": "a",
        "API_KEY": "a",
        "secret_of_mine": "a",
        "api_keys": ["a"],
        "password": 1234,
        "credentials": {"user": "a"},
        "openai_keys": {"first": "a"},
    }
    plain = {
        "token_budget": "auto",
        "token_limit": 5,
        "keyboard": "a",
        "max_new_tokens": 8,
        "use_token": True,
        "hf_token": None,
        "schema": {"properties": {"key": {"type": "string"}}, "required": ["key"]},
    }
    assert list(secret_names({**plain, **secret})) == list(secret)


def test_the_card_of_a_run_has_no_secret_of_its_config(tmp_path):
    judge = {"class_path": "mine.Judge", "init_args": {"url": "https://judge", "api_key": "sk-1"}}
    settings = {
        "model": {"reward": judge, "token_budget": "auto"},
        "data": {"datasets": {"own": {"config": {"token": "hf-2"}}}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    card = model_card(CardOf(Run(tmp_path, "own"), 2, "org/base-3B", "a LoRA adapter", "peft"))
    assert "url: https://judge" in card
    assert "api_key: (left out)" in card
    assert "token: (left out)" in card
    assert "token_budget: auto" in card
    assert "sk-1" not in card
    assert "hf-2" not in card


@pytest.mark.parametrize(
    "value",
    [
        "hf_abcdefghijklmnopqrstuvwxyz",
        "sk-proj-abcdefghijklmnopqrst",
        "Bearer abcdefghijklmnopqrst",
        "https://me:hunter2@judge.example/v1",
        ["--auth", "ghp_abcdefghijklmnopqrstuvwxyz"],
    ],
)
def test_a_token_is_a_secret_whatever_it_is_called(value):
    assert list(secret_names({"judge": {"with": value}})) == ["with"]
    assert "(left out)" in str(without_secrets({"judge": {"with": value}}))
    assert not list(
        secret_names({"judge": {"with": "https://judge.example:8000/v1", "sk": "sk-8", "bearer": "Bearer of news"}})
    )


def run_with_secrets(tmp_path, name: str, learning_rate: float, key: str) -> Run:
    run = tmp_path / name
    run.mkdir()
    settings = {"model": {"learning_rate": learning_rate, "reward": {"init_args": {"api_key": key, "größe": 2}}}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return Run(run, name)


def test_the_page_of_a_run_has_no_secret_of_its_config(tmp_path):
    shown = page([run_with_secrets(tmp_path, "a", 1e-3, "first key")])
    assert "first key" not in shown
    assert "api_key: (left out)" in shown
    assert "größe: 2" in shown


def test_nor_has_the_page_of_two_runs_where_they_differ(tmp_path):
    shown = page(
        [run_with_secrets(tmp_path, "a", 1e-3, "first key"), run_with_secrets(tmp_path, "b", 2e-3, "second key")]
    )
    assert "model.learning_rate" in shown
    assert "first key" not in shown
    assert "second key" not in shown


def test_a_config_without_secrets_is_shown_as_it_is(tmp_path):
    text = "# rl_lightning 0.1.0\nmodel: {token_budget: auto}  # as planned\n"
    (tmp_path / "config.yaml").write_text(text)
    assert Run(tmp_path, "own").config == text


class Judge:
    def __init__(self, api_key: str, strict: bool = True) -> None:
        self.api_key, self.strict = api_key, strict


def test_no_checkpoint_has_a_secret_and_a_run_resumes_with_another():
    trained_with, now = (settings(reward=Judge(key), data={"own": {"token": key}}) for key in ("first", "second"))
    assert trained_with == {"reward.class_path": "'Judge'", "reward.strict": "True"}
    refuse_other_settings(trained_with, now)
    refuse_other_settings({**trained_with, "reward.api_key": "'of an older checkpoint'"}, now)
    with pytest.raises(UserError, match="reward.strict was True and is False"):
        refuse_other_settings(trained_with, settings(reward=Judge("first", strict=False)))
