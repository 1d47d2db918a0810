"""Runs, checkpoints and models against each other, on the same problems; reads files, never the trainer."""
