"""The model card beside a checkpoint, from the run's files as they are then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from rl_lightning.data import PromptDataModule
from rl_lightning.policy.config import EMBEDDED, resolve_name
from rl_lightning.report.model_card import CARD, CardOf, PromptNote, model_card
from rl_lightning.report.run_files import Run


def write_checkpoint_card(trainer: Trainer, pl_module: Any, directory: Path) -> None:
    """Write README.md; PEFT has written one with nothing in it.

    Args:
        trainer: of the run.
        pl_module: with the policy.
        directory: the checkpoint.

    Raises:
        UserError: a file of the run is damaged.
    """
    root, base = Path(trainer.default_root_dir), pl_module.policy_config.model_name_or_path
    files = Path(resolve_name(base))
    whole = pl_module.policy.trains_all
    card = CardOf(
        run=Run(root, root.resolve().name),
        step=trainer.global_step,
        base=base,
        base_directory=files if base in EMBEDDED or files.is_dir() else None,
        what="the whole model as trained" if whole else "a LoRA adapter, which needs the base beside it",
        library="transformers" if whole else "peft",
        tags=() if whole else ("lora",),
        prompt=_prompt_note(trainer.datamodule),  # type: ignore[attr-defined]
        usage="`python -m rl_lightning export` makes of this what others load, and verifies it.",
    )
    (directory / CARD).write_text(model_card(card), encoding="utf-8")


def _prompt_note(data: Any) -> PromptNote | None:
    """How the policy is asked; None of another data module than ours."""
    if not isinstance(data, PromptDataModule) or not data.eval_problems:
        return None
    examples = data.examples if data.prompt.always_shows_examples else {}
    settings = {"system_prompt": data.prompt.system_prompt, **data.prompt.changed()}
    first = data.eval_problems[0]
    return PromptNote(settings, examples, data.template.text(first.question, first.task))
