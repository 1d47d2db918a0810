"""The data module as training's source of prompts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rl_lightning.data import PromptDataModule
from rl_lightning.distributed import SingleProcess
from rl_lightning.environments.answer_formats import answer_format
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.training import PromptSource
from rl_lightning.types import UserError


def set_up(data: PromptDataModule) -> None:
    """As Lightning does: of the module it takes the ranks, and the name of the model whose tokens the prompts are made of."""
    policy = SimpleNamespace(model_name_or_path="tiny")
    module = SimpleNamespace(join=lambda trainer, stage: SingleProcess(), policy_config=policy)
    data.trainer = SimpleNamespace(lightning_module=module, state=None)
    data.setup("fit")


def test_it_is_a_source_of_prompts(datasets):
    assert isinstance(PromptDataModule(datasets, num_workers=0), PromptSource)


@pytest.mark.parametrize(
    ("own", "name", "asked"),
    [
        (None, "tags", answer_format("tags").instructions),
        (None, "boxed", answer_format("boxed").instructions),
        (None, r"= (?P<answer>\d+)", ""),
        ("Be brief.", "boxed", "Be brief."),
        ("", "boxed", ""),
    ],
)
def test_the_prompt_asks_for_the_format_unless_it_has_its_own(datasets, own, name, asked):
    """The settings that a resumed run must keep are those in force."""
    data = PromptDataModule(datasets, num_workers=0, system_prompt=own, answer_format=name)
    assert data.answer_format.name == data.settings()["answer_format"] == name
    assert data.prompt.system_prompt == data.settings()["system_prompt"] == asked


def test_an_unknown_format_is_refused(datasets):
    with pytest.raises(UserError, match="data.answer_format: 'boxes' is not allowed"):
        PromptDataModule(datasets, num_workers=0, answer_format="boxes")


@pytest.mark.parametrize("workers", [0, 1])
def test_extra_prompts_are_others_than_the_streams_and_the_same_again(datasets, workers):
    data = PromptDataModule(datasets, prompts_per_step=4, system_prompt="", num_workers=workers, eval_num_samples=2)
    set_up(data)
    try:
        batches = iter(data.train_dataloader())
        streamed = [next(batches) for _ in range(2)]
        state = data.state_dict()
        extra = [data.extra_prompts(3), data.extra_prompts(2)]
        assert data.state_dict()["extra_cursor"] == 5
        data.load_state_dict(state)
        again = data.extra_prompts(5)
        asked = [p.question for batch in extra for p in batch.problems]
        assert [p.question for p in again.problems] == asked
        assert len({*asked, *(p.question for batch in streamed for p in batch.problems)}) == 5 + 8
        assert next(batches).cursor == 12  # the stream goes on where it was
    finally:
        data.teardown("fit")


def test_worked_examples_are_in_every_prompt_and_neither_trained_on_nor_evaluated():
    """There are 100 sums of two digits, so that the stream meets the examples' questions."""
    few = {"chain_sum": TaskSpec(config={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})}
    data = PromptDataModule(
        few, 8, system_prompt="", num_workers=0, eval_num_samples=10, examples=20, max_prompt_tokens=2000
    )
    set_up(data)
    shown = {question for question, _ in data.examples["chain_sum"]}
    batches = iter(data.train_dataloader())
    trained = {problem.question for _ in range(20) for problem in next(batches).problems}
    assert len(shown) == 20
    assert not shown & {problem.question for problem in data.eval_problems}
    assert not shown & trained
    text = data.template.tokenizer.decode(data.eval_batches()[0].prompt_ids[0])
    assert all(question.strip() in text for question in shown)
    assert data.settings()["examples"] == 20
    without = PromptDataModule(few, 8, system_prompt="", num_workers=0, eval_num_samples=10)
    set_up(without)
    assert without.eval_problems == data.eval_problems
    batches = iter(without.train_dataloader())
    assert shown & {problem.question for _ in range(20) for problem in next(batches).problems}  # or this shows nothing


def test_runs_with_another_seed_have_the_same_examples():
    """Their evaluations have the same prompts."""
    few = {"spell_backward": TaskSpec()}
    both = [PromptDataModule(few, num_workers=0, eval_num_samples=2, examples=2, seed=seed) for seed in (0, 1)]
    for data in both:
        set_up(data)
    assert both[0].examples == both[1].examples
