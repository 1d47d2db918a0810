"""What several ranks cost by arithmetic, and how long they wait for each other in a simulation: the tables of docs/scale.md.

python scripts/several_ranks.py cost
python scripts/several_ranks.py simulate
python scripts/several_ranks.py measure --ranks 2 --megabytes 35
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rl_lightning.distributed import TorchRanks
from rl_lightning.memory.shapes import model_shape

LINKS = {
    "1 Gbit/s": 1e9 / 8,
    "10 Gbit/s": 10e9 / 8,
    "100 Gbit/s": 100e9 / 8,
    "PCIe 4.0 x16": 25e9,
    "NVLink (H100)": 450e9,
}
"""Bytes a second that one rank sends, by the link's name plate: what protocols leave of it is less."""

GATHERED = 8 + 1 + 4 + 4
"""Bytes per token slot that are gathered: id, mask, sampling log-prob, and its text."""

SUMMED = 2 * (4 + 1)
"""Bytes per token slot that are summed: log-prob and entropy, and which of them are known."""

MODELS = (
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "Qwen/Qwen2.5-3B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen2.5-14B-Instruct",
    "Qwen/Qwen2.5-32B-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
)


def gradient_bytes(model: str, rank: int) -> float:
    """Bytes of the gradients of LoRA adapters of this rank on all linear layers, in float32."""
    return 4.0 * model_shape(model)[0].lora_weights_per_rank * rank


def rollout_bytes(completions: int, tokens: int) -> tuple[float, float]:
    """Bytes of a step's rollouts that are gathered, and that are summed.

    Args:
        completions: N, of all ranks together.
        tokens: of the longest completion, to which the others are padded.
    """
    return float(GATHERED * completions * tokens), float(SUMMED * completions * tokens)


def seconds(summed: float, gathered: float, ranks: int, bytes_per_second: float) -> float:
    """Time of ring algorithms, without latency: a sum sends each byte twice, a gathering once, but for a rank's own share."""
    return (ranks - 1) / ranks * (2 * summed + gathered) / bytes_per_second


def cost(ranks: int, completions: int, tokens: int, lora_rank: int) -> str:
    """Bytes and seconds of a step's communication, by model and link, as a Markdown table."""
    gathered, summed = rollout_bytes(completions, tokens)
    lines = [f"| model | gradients, MB | {' | '.join(LINKS)} |", "|---|" + "---:|" * (1 + len(LINKS))]
    for model in MODELS:
        gradients = gradient_bytes(model, lora_rank)
        times = (seconds(gradients + summed, gathered, ranks, speed) for speed in LINKS.values())
        lines.append(f"| {model} | {gradients / 1e6:.0f} | {' | '.join(f'{each:.2g} s' for each in times)} |")
    rollouts = f"{gathered / 1e6:.0f} MB gathered and {summed / 1e6:.0f} MB summed"
    return "\n".join([*lines, "", f"Of {completions} completions of up to {tokens} tokens: {rollouts}."])


Share = Callable[[np.ndarray, np.random.Generator, int], np.ndarray]
"""From (B, G) lengths to the rank of each of the B prompts."""


def every_wth(lengths: np.ndarray, rng: np.random.Generator, ranks: int) -> np.ndarray:
    """As `share_of_prompts` does."""
    return np.arange(len(lengths)) % ranks


def by_expected(correlation: float) -> Share:
    """Longest first to the rank with the fewest expected tokens, equally many prompts each; the expectation has this correlation
    with the logarithm of the group's mean length."""

    def share(lengths: np.ndarray, rng: np.random.Generator, ranks: int) -> np.ndarray:
        known = np.log(lengths.mean(1))
        known = (known - known.mean()) / known.std()
        expected = np.exp(correlation * known + (1 - correlation**2) ** 0.5 * rng.standard_normal(len(known)))
        load, count, of = np.zeros(ranks), np.zeros(ranks, int), np.empty(len(lengths), int)
        for prompt in np.argsort(-expected):
            free = np.flatnonzero(count < len(lengths) // ranks)
            of[prompt] = rank = free[load[free].argmin()]
            load[rank] += expected[prompt]
            count[rank] += 1
        return of

    return share


SHARES: dict[str, Share] = {
    "every W-th": every_wth,
    "expected, r = 0.7": by_expected(0.7),
    "known beforehand": by_expected(1.0),
}


def waiting(
    ranks: int, per_rank: int, share: Share, steps: int = 200, group: int = 8, rows_at_cost: int = 256
) -> float:
    """Share of a step that ranks wait for others on average, in a simulation.

    A decode step takes 1, and 1 / `rows_at_cost` more for each row that is still going; so a rank's rollout takes the length of
    its longest completion, plus its tokens / `rows_at_cost`. The update takes as long per token as a rollout with many rows, and is
    dealt by groups, longest first. Lengths are lognormal, median 600, with a standard deviation of the logarithm of 0.5 between
    prompts and 0.5 within a group, at most 4,096.

    Args:
        ranks: W.
        per_rank: prompts per rank and step.
        share: which rank samples which prompt.
        steps: number of simulated steps.
        group: completions per prompt.
        rows_at_cost: rows at which a decode step takes twice as long as with one.
    """
    rng, noise, waited = np.random.default_rng(0), np.random.default_rng(1), []
    for _ in range(steps):
        prompts = ranks * per_rank
        logs = np.log(600) + 0.5 * rng.standard_normal((prompts, 1)) + 0.5 * rng.standard_normal((prompts, group))
        lengths = np.minimum(np.exp(logs), 4096)
        of = share(lengths, noise, ranks)  # the same lengths for every way of sharing
        longest, tokens = np.zeros(ranks), np.zeros(ranks)
        np.maximum.at(longest, of, lengths.max(1))
        np.add.at(tokens, of, lengths.sum(1))
        rollout = longest + tokens / rows_at_cost
        trained = np.bincount(by_expected(1.0)(lengths, noise, ranks), lengths.sum(1), ranks) / rows_at_cost
        waited.append(1 - (rollout + trained).mean() / (rollout.max() + trained.max()))
    return float(np.mean(waited))


def simulate(sizes: Sequence[int], per_rank: Sequence[int]) -> str:
    """Waiting by number of ranks, prompts per rank and how prompts are shared, as a Markdown table."""
    names = [f"{each} prompts, {name}" for each in per_rank for name in SHARES]
    lines = [f"| ranks | {' | '.join(names)} |", "|---:|" + "---:|" * len(names)]
    for ranks in sizes:
        found = (waiting(ranks, each, share, 1 + 2000 // ranks) for each in per_rank for share in SHARES.values())
        lines.append(f"| {ranks} | {' | '.join(f'{each:.0%}' for each in found)} |")
    return "\n".join(lines)


def _measure_rank(rank: int, ranks: int, file: str, megabytes: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=ranks)
    here, values = TorchRanks(torch.device("cpu")), torch.ones(int(megabytes * 1e6 / 4))
    times: dict[str, list[float]] = {"sum": [], "gather": []}
    for _ in range(5):
        for name in times:
            here.any(False)  # all begin together
            began = time.perf_counter()
            here.sum(values) if name == "sum" else here.gather(values[: len(values) // ranks])
            times[name].append(time.perf_counter() - began)
    if rank == 0:
        for name, found in times.items():
            print(f"{name} of {megabytes:g} MB over {ranks} ranks (gloo, one machine): {sorted(found)[2]:.3f} s")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "simulate", "measure"))
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--completions", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--megabytes", type=float, default=35.0)
    asked = parser.parse_args()
    if asked.what == "cost":
        print(cost(asked.ranks, asked.completions, asked.tokens, asked.lora_rank))
    elif asked.what == "simulate":
        print(simulate((8, 32, 128, 512), (1, 4, 16)))
    else:
        with tempfile.TemporaryDirectory() as directory:
            mp.spawn(_measure_rank, (asked.ranks, f"{directory}/meet", asked.megabytes), nprocs=asked.ranks)


if __name__ == "__main__":
    main()
