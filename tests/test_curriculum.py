"""Whole runs whose difficulty follows the learner: the same with workers ahead and after a stop, and evaluated on all levels."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from rl_lightning import data as data_room
from rl_lightning.checkpointing.checkpoints import resolve_checkpoint
from rl_lightning.cli.main import main
from rl_lightning.curriculum import Curriculum
from rl_lightning.data import PromptDataModule
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import PromptStream
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import WeightedReward
from rl_lightning.types import RolloutBatch, UserError
from tests.conftest import ROOT
from tests.runs import SUMS, run, same

DIGITS = {"min_digits": 1, "max_digits": 1}
LEVELS = [{"min_terms": terms, "max_terms": terms} for terms in (2, 3, 4, 5)]
TASKS = {
    "chain_sum": TaskSpec(config=DIGITS, levels=LEVELS),
    "spell_backward": TaskSpec(weight=0.2, config={"max_word_len": 4}, levels=[{}]),
}
CURRICULUM = Curriculum(window=2, start=1, rehearsal=0.3, follow_progress=True)
STEPS = 18
PROMPTS_WITHOUT_A_CURRICULUM = "cf199d604069c980"
"""blake2b of the questions of slots 0 to 199 of seed 11, by the version before there were curricula."""


@pytest.fixture(scope="module", autouse=True)
def learner():
    """What the tiny policy gets right in twelve tokens says little; so here levels 0 to 2 are easy, and level 3 is hard."""
    with pytest.MonkeyPatch.context() as patch:
        accuracies = property(lambda self: [(p, 1.0 if (p.level or 0) < 3 else 0.1) for p in self.prompts.problems])
        patch.setattr(RolloutBatch, "accuracies", accuracies)
        yield


def train(root: Path, steps: int, **kwargs):
    return run(root, steps, tasks=TASKS, curriculum=CURRICULUM, **kwargs)


@pytest.fixture(scope="module")
def whole(learner, tmp_path_factory):
    root = tmp_path_factory.mktemp("curriculum") / "whole"
    train(root, STEPS)
    return root


def test_the_level_follows_the_learner_as_many_steps_later_as_are_drawn_ahead(whole):
    rows = pd.read_parquet(whole / "rollouts")
    sums = rows[rows.task == "chain_sum"]
    assert rows[rows.task == "spell_backward"].level.isna().all()
    assert sums[sums.step <= 5].level.max() == 1
    assert 0 in set(sums[sums.step <= 5].level)  # a rehearsal
    assert sums.level.max() == 3
    assert all(
        prompt.count("+") + prompt.count("-") == level + 1
        for prompt, level in zip(sums.prompt, sums.level, strict=True)
    )
    logged = [row for row in csv.DictReader((whole / "metrics.csv").open()) if row["curriculum/chain_sum/level"]]
    levels = [float(row["curriculum/chain_sum/level"]) for row in logged]
    assert len(levels) == STEPS
    moved = next(step for step, level in enumerate(levels, 1) if level == 2)
    first = int(sums[sums.level == 2].step.min())
    assert first > moved + 4  # it was decided after that step, and four were drawn by then
    assert not any("spell_backward" in name for name in logged[0] if name.startswith("curriculum/"))
    docs = (ROOT / "docs" / "metrics.md").read_text()
    for name in logged[0]:
        if name.startswith("curriculum/"):
            assert f"`{name.replace('chain_sum', '<task>')}`" in docs


@pytest.mark.parametrize(("stop", "workers"), [(3, 1), (12, 0)])
def test_a_stopped_run_has_the_same_levels_to_the_last_bit(whole, tmp_path, workers, stop):
    train(tmp_path / "halves", stop, workers=workers)
    train(tmp_path / "halves", STEPS, workers=workers, ckpt_path=str(resolve_checkpoint("last", tmp_path / "halves")))
    same(tmp_path / "halves", whole, STEPS)


@pytest.mark.parametrize("workers", [0, 1])
def test_with_groups_replaced_it_is_still_the_same(tmp_path, workers):
    """Extra prompts have the levels that were decided last, and leave the schedule of the stream alone."""
    model = {"sampling": Sampling(4, 12, max_resample=2), "reward": WeightedReward(format=0.0), "workers": workers}
    _, _, data = train(tmp_path / "whole", 10, **model)
    assert data.extra_cursor > 0
    assert data.scheduler.levels["chain_sum"] > CURRICULUM.start
    train(tmp_path / "halves", 4, **model)
    train(tmp_path / "halves", 10, ckpt_path=str(resolve_checkpoint("last", tmp_path / "halves")), **model)
    same(tmp_path / "halves", tmp_path / "whole", 10)


def test_a_run_goes_on_by_its_own_levels_where_this_machine_would_use_others(whole, tmp_path, monkeypatch, caplog):
    """For instance because a level is too slow while something else runs."""
    train(tmp_path / "halves", 8)
    good = data_room.usable
    monkeypatch.setattr(data_room, "usable", lambda checks: good(checks)[:1])  # too few for `start`, too
    train(tmp_path / "halves", STEPS, workers=1, ckpt_path=str(resolve_checkpoint("last", tmp_path / "halves")))
    assert "continuing with the checkpoint's" in caplog.text
    same(tmp_path / "halves", whole, STEPS)


def test_what_was_learnt_is_kept_with_and_without_a_curriculum(whole, tmp_path):
    state = torch.load(whole / f"checkpoint-{STEPS}" / "trainer.ckpt", weights_only=True)["PromptDataModule"]
    rows = pd.read_parquet(whole / "rollouts").drop_duplicates(["step", "group"])
    sums = rows[rows.task == "chain_sum"]
    assert {(task, level): groups for task, level, groups, *_ in state["record"]} == {
        ("spell_backward", None): len(rows) - len(sums),
        **{("chain_sum", level): number for level, number in sums.level.value_counts().items()},
    }
    assert len(state["scheduler"]["schedule"]) <= 6  # what is behind is forgotten
    run(tmp_path / "plain", 2)
    plain = torch.load(tmp_path / "plain" / "checkpoint-2" / "trainer.ckpt", weights_only=True)
    assert plain["PromptDataModule"] == {
        "cursor": 4,
        "extra_cursor": 0,
        "seed": 0,
        "record": [["chain_sum", None, 4, 1.0, 1.0]],
    }


def test_the_evaluation_has_all_levels_and_validate_asks_the_same(whole, tmp_path):
    whole = shutil.copytree(whole, tmp_path / "whole")
    results = [json.loads((whole / "eval_results" / f"eval_step_{step}.json").read_text()) for step in (0, STEPS)]
    assert results[0]["suite"] == results[1]["suite"]
    found = {
        name: metrics["n"] for name, metrics in results[1]["levels"]["chain_sum"].items() if name.startswith("level")
    }
    assert found == {"level 0": 2, "level 1": 1, "level 2": 1, "level 3": 1}
    assert next(iter(results[1]["levels"]["chain_sum"])) == "level 0"
    assert "gain" in results[1]["levels"]["chain_sum"]["level 0"]
    specs = {n: {"weight": s.weight, "config": s.config, "levels": s.levels} for n, s in TASKS.items()}
    data = {"datasets": specs, "system_prompt": "", "num_workers": 0, "eval_num_samples": 5, "curriculum": {"start": 1}}
    sampling = {"num_generations": 4, "max_new_tokens": 12}
    config = whole / "config_for_validate.yaml"
    config.write_text(json.dumps({"trainer": {"accelerator": "cpu"}, "model": {"sampling": sampling}, "data": data}))
    words = ["validate", "--config", str(config), "--ckpt_path", str(whole / f"checkpoint-{STEPS}")]
    assert main([*words, f"--trainer.default_root_dir={whole}", "--trainer.enable_progress_bar=false"]) == 0
    again = json.loads((whole / "eval_results" / f"validate_step_{STEPS}.json").read_text())
    assert again["suite"] == results[1]["suite"]
    assert again["levels"] == results[1]["levels"]


def test_validate_by_other_levels_asks_those(whole, tmp_path):
    specs = {"chain_sum": {"config": DIGITS, "levels": LEVELS[:2]}}
    data = {"datasets": specs, "system_prompt": "", "num_workers": 0, "eval_num_samples": 4, "curriculum": {}}
    config = tmp_path / "other.yaml"
    sampling = {"num_generations": 4, "max_new_tokens": 12}
    config.write_text(json.dumps({"trainer": {"accelerator": "cpu"}, "model": {"sampling": sampling}, "data": data}))
    words = ["validate", "--config", str(config), "--ckpt_path", str(whole / f"checkpoint-{STEPS}")]
    assert main([*words, f"--trainer.default_root_dir={tmp_path / 'out'}", "--trainer.enable_progress_bar=false"]) == 0
    (result,) = (tmp_path / "out" / "eval_results").glob("validate_*.json")
    levels = json.loads(result.read_text())["levels"]["chain_sum"]
    assert {name for name in levels if name.startswith("level")} == {"level 0", "level 1"}


def test_compare_evaluates_all_at_the_levels_that_they_have_in_common(whole, tmp_path, monkeypatch, capsys):
    """The second run was trained on a machine that can use three of the four levels, the third one without a curriculum."""
    good = data_room.usable
    with monkeypatch.context() as patch:
        patch.setattr(data_room, "usable", lambda checks: good(checks)[:3])
        train(tmp_path / "fewer", 2)
    run(tmp_path / "plain", 2, tasks=TASKS)
    specs = {n: {"weight": s.weight, "config": s.config, "levels": s.levels} for n, s in TASKS.items()}
    data = {"datasets": specs, "system_prompt": "", "num_workers": 0, "eval_num_samples": 5, "curriculum": {"start": 1}}
    sampling = {"num_generations": 4, "max_new_tokens": 12}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"trainer": {"accelerator": "cpu"}, "model": {"sampling": sampling}, "data": data}))
    names = [str(whole), str(tmp_path / "fewer"), str(tmp_path / "plain")]
    words = ["compare", *names, "--out", str(tmp_path / "out"), "--evaluate", "--config", str(config)]
    assert main(words) == 0
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    levels = [name for name in found["contenders"][0]["groups"] if name.startswith("chain_sum, level")]
    assert levels == [f"chain_sum, level {level}" for level in range(3)]
    rows = pd.read_parquet(whole / "rollouts").drop_duplicates(["step", "group"]).level.value_counts()
    assert found["contenders"][0]["trained_levels"] == {"chain_sum": {str(int(k)): n for k, n in sorted(rows.items())}}
    assert "trained_levels" not in found["contenders"][2]
    assert "was trained with a curriculum, groups by level: chain_sum " in capsys.readouterr().out


def test_a_level_of_the_users_that_the_task_refuses_is_a_mistake(tmp_path):
    tasks = {"chain_sum": TaskSpec(config=DIGITS, levels=[LEVELS[0], {"min_terms": 5, "max_terms": 4}, LEVELS[1]])}
    with pytest.raises(UserError, match=r"datasets.chain_sum.levels\[1\]: refused by the task"):
        run(tmp_path, 1, tasks=tasks, curriculum=Curriculum(), evaluate=False)


def test_the_page_shows_the_levels(whole, tmp_path):
    assert main(["report", str(whole), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    charts = {chart["title"]: chart for chart in json.loads(found)["charts"]["training"]}
    assert [line["label"] for line in charts["Level of difficulty"]["lines"]] == ["chain_sum"]
    assert charts["Level of difficulty"]["lines"][0]["y"][0] == 2
    assert charts["Success at that level"]["unit"] == "share"


def test_without_a_curriculum_the_prompts_are_what_they_were(datasets, policy):
    stream = PromptStream(EnvironmentMixture(datasets), PromptTemplate(policy.tokenizer, ""), seed=11)
    questions = [stream[slot].problem.question for slot in range(200)]
    assert hashlib.blake2b("\n".join(questions).encode(), digest_size=8).hexdigest() == PROMPTS_WITHOUT_A_CURRICULUM
    data = PromptDataModule(TASKS)
    assert "curriculum" not in data.settings()
    assert data.scheduler is None


def test_another_curriculum_is_another_run(tmp_path):
    train(tmp_path, 2, evaluate=False)
    with pytest.raises(UserError, match="data.curriculum.low was 0.3 and is 0.2"):
        run(
            tmp_path,
            4,
            tasks=TASKS,
            curriculum=Curriculum(low=0.2, window=2, start=1, rehearsal=0.3, follow_progress=True),
            evaluate=False,
            ckpt_path=str(resolve_checkpoint("last", tmp_path)),
        )


def test_levels_that_cannot_be_used_are_named(tmp_path, caplog):
    run(tmp_path, 1, tasks=SUMS | {"spell_backward": TASKS["spell_backward"]}, curriculum=Curriculum(), evaluate=False)
    trying, *lines = [record.getMessage() for record in caplog.records if "levels" in record.getMessage()]
    assert trying == "data.curriculum: trying 12 levels, each for 10 s at most"
    assert len(lines) == 2
    assert "datasets.spell_backward: 1 of 1 levels; it stays at its config" in "".join(lines)
    assert "chain_sum: 1 of 11 levels; left out: 1 to 10 (the same as the level before)" in "".join(
        lines
    )  # what the config fixes, no level changes
