"""What `scripts/lab.py` runs: courses from files, one process a run, and tables and pictures from the runs' files."""
