"""What `scripts/lab.py` runs: courses from files, one process a run, and tables and pictures from the runs' files."""

from rl_lightning.cli import quiet

quiet()  # before any module here is imported, for some of what it silences is said at import
