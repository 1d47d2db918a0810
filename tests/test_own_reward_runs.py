"""Runs with a user's own reward: tried before the first evaluation, resumed by name, given on the command line."""

from __future__ import annotations

import pytest

from rl_lightning.checkpointing.checkpoints import resolve_checkpoint
from rl_lightning.checkpointing.resume import settings
from rl_lightning.cli.main import main
from rl_lightning.data import PromptDataModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.scoring import Reward, as_reward
from tests.extension_points.training import fit, module
from tests.runs import SUMS, run

CALLS: list[str] = []


def brevity(completion, score):
    CALLS.append(completion)
    return score.exact - 0.01 * len(completion)


def broken_where_right(score):
    return 1 / (1 - score.exact)


def test_a_function_trains_and_is_known_by_its_name(tmp_path):
    CALLS.clear()
    (record,) = fit(
        tmp_path, module(reward=brevity), PromptDataModule(SUMS, prompts_per_step=2, num_workers=0, eval_num_samples=4)
    )
    assert len(CALLS) > record.rollouts.rewards.numel()  # those of the trial too
    texts = record.rollouts.rollout.texts
    expected = [s.exact - 0.01 * len(t) for s, t in zip(record.rollouts.scores, texts, strict=True)]
    assert record.rollouts.rewards.flatten().tolist() == pytest.approx(expected)
    assert settings(reward=as_reward(brevity))["reward.function"] == repr(f"{__name__}.brevity")


def test_a_trial_has_a_right_answer_among_its_completions_and_comes_before_all_else(tmp_path, capsys):
    """The tiny policy's own first answers need not be right."""
    words = ["--config", "quickstart", "--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert main(["fit", *words, "--model.reward=tests.test_own_reward_runs.broken_where_right"]) == 2
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert "tests.test_own_reward_runs.broken_where_right raised ZeroDivisionError" in line
    assert "<answer>" in line
    assert "step 0" not in said.out
    assert not (tmp_path / "run" / "eval_results").exists()


class Counting(Reward):
    """Has state that changes when it is called, and relies on what every completion begins with."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, problem, completion, score):
        self.calls += 1
        return len(completion.split("<think>", 1)[1])


def test_a_trial_leaves_a_run_resumable_and_its_texts_begin_as_the_prompt_does(tmp_path):
    settings = {
        "data": {"prefill": "<think>"},
        "save_steps": 1,
        "evaluate": False,
        "policy": PolicyConfig("tiny", "none"),
    }
    run(tmp_path, 1, reward=Counting(), **settings)
    _, module, _ = run(tmp_path, 2, str(resolve_checkpoint("last", tmp_path)), reward=Counting(), **settings)
    assert module.loaded_step == 1
    assert module.reward.calls > 0


def test_a_reward_that_is_not_there(tmp_path, capsys):
    words = ["--config", "quickstart", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert main(["fit", *words, "--model.reward=tests.test_own_reward_runs.nosuch"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: model.reward: ")
    assert "has no attribute 'nosuch'" in line
    assert "Union" not in line
