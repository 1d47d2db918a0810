"""The parts of `scripts/ablations.py`: experiments from files, one process per run, tables and pictures from the runs' files."""

from rl_lightning.cli.quiet import quiet

quiet()  # before any module here is imported, because some of what it silences is printed at import
