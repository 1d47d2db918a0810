"""Checkpoint directories, what a resumed run needs besides weights, and atomic files.

May import only `types`, so that any other package can write a file atomically. `atomic_files` writes files that no crash leaves
half-written, `checkpoints` writes and verifies directories `checkpoint-N`, `resume` saves RNG states and compares settings,
`model_files` knows the files of models and adapters by name.
Import from these modules directly: `resume` needs torch, and not every command does.
"""
