"""The measurements as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import transformers

from model_families.measure import Measured, Row

DECODERS = {"RolloutNetwork": "own network", "ThroughTransformers": "transformers"}
HEAD = """\
| family | base | result | update, nats | sampler, nats | gradients, relative | greedy | bf16: update, sampler; transformers |
|---|---|---|---|---|---|---|---|
"""
PAGE = """\
# Model families

Written by `python scripts/models.py --write docs/models.md`, with transformers {version}, on a CPU.

Each row is a small random model of a family, in which all that is special to the family matters: norms, biases and sinks have
values of their own, sequences are longer than sliding windows, and the vocabulary has ids that the tokenizer has no words for. The
adapters have values. Everything is compared with plain transformers (eager attention) and plain PEFT with the same weights:

- update, sampler: largest difference of a token's log-prob in float32, of packed rows with shared prompts, and of the rollout;
- gradients: largest difference of an adapter's gradient, relative to its norm;
- greedy: prompts whose greedy completion equals `generate`'s, token for token;
- bf16: median difference of log-probs in bf16 to those in float32, of update and sampler, and beside it that of transformers.

"Right" names what rollouts run on: the own network, or transformers' layers, which are slower. A refused model is an error of one
line at the start of a run.

## Listed

{listed}
"""
UNLISTED = """
## Others

{others}
"""


def page(rows: Sequence[Row], unlisted: Collection[str]) -> str:
    """The page: the table of listed families, and that of the others if there are rows of these."""
    others = [row for row in rows if row.name in unlisted]
    listed = table([row for row in rows if row.name not in unlisted])
    text = PAGE.format(version=transformers.__version__, listed=listed)
    return text + (UNLISTED.format(others=table(others)) if others else "")


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    return HEAD + "\n".join("| " + " | ".join(_cells(row)) + " |" for row in rows)


def _cells(row: Row) -> list[str]:
    measured, verdict = row.measured, row.verdict.replace("|", "\\|")
    if measured is None:
        return [row.name, row.quantization, verdict, *["–"] * 5]
    verdict += f" ({_decoders(measured)})"
    differences = [f"{each:.0e}" for each in (measured.update, measured.sampler, measured.gradient)]
    half = measured.bf16
    in_16_bits = f"{half.update:.3f}, {half.sampler:.3f}; {half.theirs:.3f}" if half else "–"
    return [row.name, row.quantization, verdict, *differences, str(measured.greedy), in_16_bits]


def _decoders(measured: Measured) -> str:
    name = DECODERS.get(measured.decoder, measured.decoder)
    if measured.bf16 is None or measured.bf16.decoder == measured.decoder:
        return name
    return f"{name}; in bf16 {DECODERS.get(measured.bf16.decoder, measured.bf16.decoder)}"
