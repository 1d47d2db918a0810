"""What `scripts/bench.py` runs: the workloads, one process a side, the machine's limits, and the tables."""
