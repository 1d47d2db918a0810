"""The `compare` command: runs, checkpoints and models against each other on the same problems.

Reads and writes files; where it has to evaluate, `validate` does so in a separate process. May import `types`, `checkpointing`,
`statistics` and `evaluation`, never the trainer; matplotlib is imported where the picture is drawn. Main export:
`comparison.command.main`.
"""
