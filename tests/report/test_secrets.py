"""Which settings no model card and no page shows."""

from __future__ import annotations

import yaml

from rl_lightning.report.model_card import CardOf, model_card
from rl_lightning.report.page import page
from rl_lightning.report.run_files import Run, read_runs
from rl_lightning.report.secrets import secret_names, without_secrets
from tests.report.constructed import write_run


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


def test_a_page_and_what_runs_differ_in_have_no_secret(tmp_path):
    texts = []
    for name in ("first", "second"):
        run = write_run(tmp_path / name)
        settings = yaml.safe_load((run / "config.yaml").read_text()) | {"judge": {"api_key": f"sk-{name}"}}
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
        texts.append(page(read_runs([run])))
    texts.append(page(read_runs([tmp_path / "first", tmp_path / "second"])))
    for text in texts:
        assert "(left out)" in text
        assert "sk-" not in text
