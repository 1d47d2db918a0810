"""Train language models by GRPO (reinforcement learning with verifiable rewards) on one GPU; start reading at module.py."""

__version__ = "0.1.0"
