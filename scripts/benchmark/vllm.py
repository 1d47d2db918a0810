"""Run a workload as `benchmark.ours` does, with rollouts by vLLM, in an environment that has it."""

from __future__ import annotations

from functools import partial

from benchmark.ours import run
from benchmark.side_report import main
from rl_lightning.rollout import VLLM

if __name__ == "__main__":
    main(partial(run, engine=VLLM()))
