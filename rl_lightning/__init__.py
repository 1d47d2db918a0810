"""rl_lightning: teach language models to reason with GRPO, on the one GPU you have."""
