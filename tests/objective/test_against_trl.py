"""The objective against TRL's own GRPOTrainer: on the same completions both must make the same updates.

The learning rate drives ratios out of the clip range, so that every term of a loss counts. These tests need the extra [bench] and
are skipped without it.
"""

from __future__ import annotations

import pytest

from rl_lightning.objective import CISPO, GSPO, SAPO, Clip, Objective
from tests.objective.trl_training import (
    GROUP_SIZE,
    QUESTIONS,
    UPDATES,
    Completions,
    Updates,
    Variant,
    train_with_objective,
    train_with_trl,
)

pytestmark = pytest.mark.trl

GRADIENT_TOLERANCE = 1e-4
"""Relative to the gradient's norm. Both sides compute in float32, but TRL pads on the left, cuts into micro-batches and has an LM
head of its own, so sums are rounded otherwise: by up to 2.4e-5 here."""

ADVANTAGE_TOLERANCE = LOSS_TOLERANCE = 1e-6
"""Absolute. Both are of size 1 and rounded to float32, by up to 2.4e-7 here."""

UNCLIPPED = Objective(surrogate=Clip(epsilon=0.999, epsilon_high=1e9))
VARIANTS = {
    "dapo": Variant(Objective(), UNCLIPPED),
    "dapo, one micro-batch": Variant(Objective(), UNCLIPPED, micro_batches=1),
    "grpo": Variant(Objective(loss_type="grpo"), Objective(), {"loss_type": "grpo"}),
    "dr_grpo": Variant(Objective(loss_type="dr_grpo"), Objective(), {"loss_type": "dr_grpo"}),
    # TRL normalises bnpo in each micro-batch by itself, which rl_lightning never does.
    "bnpo": Variant(Objective(loss_type="bnpo"), UNCLIPPED, {"loss_type": "bnpo"}, micro_batches=1),
    "two-sided clip": Variant(Objective(surrogate=Clip(delta=1.3)), Objective(), {"delta": 1.3}),
    "gspo": Variant(
        Objective(surrogate=GSPO(epsilon=0.02, epsilon_high=0.03), loss_type="grpo"),
        Objective(surrogate=Clip(epsilon=0.02, epsilon_high=0.03), loss_type="grpo"),
        {"importance_sampling_level": "sequence", "epsilon": 0.02, "epsilon_high": 0.03, "loss_type": "grpo"},
    ),
    # TRL's epsilon_high is here the largest ratio itself.
    "cispo": Variant(
        Objective(surrogate=CISPO(epsilon_high=0.28)),
        Objective(surrogate=CISPO(epsilon_high=1e9)),
        {"loss_type": "cispo", "epsilon_high": 1.28},
    ),
    # TRL weights SAPO's tokens as it does grpo's.
    "sapo": Variant(
        Objective(surrogate=SAPO(positive=1.5, negative=2.0), loss_type="grpo"),
        Objective(surrogate=SAPO(), loss_type="grpo"),
        {"loss_type": "sapo", "sapo_temperature_pos": 1.5, "sapo_temperature_neg": 2.0},
    ),
    # k3 grows exponentially where the policy has dropped a token, so the updates must be smaller.
    "KL": Variant(
        Objective(loss_type="grpo", beta=0.05),
        Objective(loss_type="grpo"),
        {"loss_type": "grpo", "beta": 0.05, "use_bias_correction_kl": False},
        micro_batches=1,
        learning_rate=0.002,
    ),
    "unbiased KL": Variant(
        Objective(beta=0.1, kl_unbiased_gradient=True), Objective(), {"beta": 0.1, "use_bias_correction_kl": True}
    ),
    # TRL takes the mean of the entropies of each micro-batch by itself.
    "entropy bonus": Variant(Objective(entropy_bonus=0.02), Objective(), {"entropy_coef": 0.02}, micro_batches=1),
    "scaled by batch": Variant(Objective(scale_advantages="batch"), Objective(), {"scale_rewards": "batch"}),
    "not scaled": Variant(Objective(scale_advantages="none"), Objective(), {"scale_rewards": "none"}),
    "normalize_then_sum": Variant(
        Objective(reward_aggregation="normalize_then_sum"),
        Objective(),
        {"multi_objective_aggregation": "normalize_then_sum"},
    ),
    "truncated masked": Variant(
        Objective(mask_truncated_completions=True), Objective(), {"mask_truncated_completions": True}
    ),
}


def distances(ours: Updates, theirs: Updates) -> list[float]:
    """Of each update how far the two gradients are apart, relative to the norm of TRL's."""
    pairs = zip(ours.gradients, theirs.gradients, strict=True)
    return [float((mine - other).norm() / other.norm()) for mine, other in pairs]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def trained(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> tuple[Completions, Updates]:
    return train_with_trl(variant, tmp_path_factory.mktemp("trl"))


@pytest.fixture(scope="module")
def ours(variant: Variant, trained: tuple[Completions, Updates]) -> Updates:
    return train_with_objective(trained[0], variant.ours, variant.learning_rate)


def test_advantages_equal_trls(trained, ours):
    completions, theirs = trained
    assert len(completions.ids) == len(QUESTIONS) * GROUP_SIZE
    assert 0 < completions.finished.sum() < len(completions.ids)
    assert (ours.advantages - theirs.advantages).abs().max() < ADVANTAGE_TOLERANCE
    assert theirs.advantages.abs().max() > 0.5


def test_losses_and_gradients_equal_trls_in_every_update(variant, trained, ours):
    _, theirs = trained
    assert len(theirs.gradients) == len(theirs.losses) == UPDATES
    assert ours.losses == pytest.approx(theirs.losses, rel=0, abs=LOSS_TOLERANCE)
    assert max(distances(ours, theirs)) < GRADIENT_TOLERANCE
    if variant.micro_batches == 1:  # TRL's logs are means of the micro-batches' means
        for mine, logged in zip(ours.metrics, theirs.metrics, strict=True):
            assert mine == pytest.approx(logged, rel=1e-4, abs=1e-6)


def test_without_the_variants_own_setting_gradients_are_others(variant, trained):
    """So that none of these comparisons holds because a setting does nothing at this learning rate."""
    completions, theirs = trained
    other = train_with_objective(completions, variant.without, variant.learning_rate)
    assert max(distances(other, theirs)) > 100 * GRADIENT_TOLERANCE
