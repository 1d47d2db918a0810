"""The parts of `scripts/bench.py`: workloads, a process for each side, the machine's roofline, and the tables.

A side is rl_lightning ("ours") or TRL's GRPOTrainer ("peer").
"""
