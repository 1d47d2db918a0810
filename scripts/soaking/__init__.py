"""What `scripts/soak.py` measures with: a run's processes, and how a quantity changes over the steps."""
