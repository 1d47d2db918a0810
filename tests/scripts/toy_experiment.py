"""A toy experiment that takes a second, and the runs of it."""

from __future__ import annotations

from pathlib import Path

import yaml
from ablation import experiments
from ablation.experiments import Experiment, Run

TOY = {
    "about": "Does it run?",
    "seconds": 0.2,
    "every": 1,
    "base": {
        "model.lr_schedule": "constant",
        "model.sampling.num_generations": 2,
        "model.sampling.max_new_tokens": 16,
        "model.score_workers": 1,
        "data.prompts_per_step": 2,
        "data.num_workers": 0,
        "data.eval_num_samples": 2,
        "data.datasets": {"spell_backward": {"config": {"min_word_len": 4, "max_word_len": 5}}},
    },
    "variants": {
        "plain": {},
        "shorter": {
            "model.objective.surrogate": "CISPO",
            "data.datasets.spell_backward.config": {"min_word_len": 3, "max_word_len": 3},
        },
    },
}


MACHINE = {"cpu": "an abacus", "cores": 2, "threads": 1, "python": "3", "packages": {"torch": "2"}}


def written(file: Path, **changes) -> Path:
    file.write_text(yaml.safe_dump({**TOY, **changes}, sort_keys=False))
    return file


def toy_runs(file: Path, seeds=(0,)) -> list[Run]:
    experiment = Experiment.read(str(file))
    return experiments.runs(experiment, list(experiment.variants), seeds, experiment.seconds, threads=1)
