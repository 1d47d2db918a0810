"""Plain or dithered: how near a merged export is to its policy by either rounding, in bfloat16 weights and float32 computation.

`python scripts/measure_rounding.py RUN`: log-probs of 64 stored completions by the policy on the full-precision base, and by
its weights rounded to the nearest, and dithered as rollouts are. `change kept` is the slope of the rounded model's change from the
base on the policy's: 1 where rounding takes nothing of what was learned.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rl_lightning.cli.export import read_source
from rl_lightning.export.loaded import PlainModel
from rl_lightning.export.merging import AdapterDeltas
from rl_lightning.export.run_prompts import RunPrompts
from rl_lightning.export.stored_completions import stored_completions
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.policy.lora import dithered


def main() -> None:
    for run in sys.argv[1:]:
        measure(Path(run))


@torch.no_grad()
def measure(run: Path) -> None:
    source = read_source(run, None, None)
    template = RunPrompts(source).template(tokenizer := load_tokenizer(source.policy.model_name_or_path))
    completions = stored_completions(source, template, tokenizer.eos_token_id, 64)
    deltas = AdapterDeltas(source.checkpoint)

    def log_probs(rounding: str) -> torch.Tensor:
        model: Any = AutoModelForCausalLM.from_pretrained(source.model_directory, dtype=torch.float32)
        for name, weight in model.named_parameters():
            if name in deltas.shapes and rounding != "base":
                weight.copy_(deltas.add(name, weight.clone()))
            if rounding == "plain" or (rounding == "dithered" and name not in deltas.shapes):
                weight.copy_(weight.bfloat16())
            elif rounding == "dithered":
                weight.copy_(dithered(weight.clone(), torch.bfloat16))
        plain = PlainModel(model, tokenizer, model.generation_config)
        return torch.cat([plain.log_probs(each.prompt_ids, each.completion_ids) for each in completions])

    base, policy = log_probs("base"), log_probs("none")
    learned = policy - base
    print(f"{source.checkpoint}: {len(policy)} tokens, base to policy {learned.abs().mean():.4f} nats per token")
    for rounding in ("plain", "dithered"):
        found = log_probs(rounding)
        apart, kept = (found - policy).abs(), ((found - base) @ learned) / (learned @ learned)
        print(f"  {rounding:9} mean {apart.mean():.5f}, largest {apart.max():.3f}, change kept {kept:.4f}")


if __name__ == "__main__":
    main()
